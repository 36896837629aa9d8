"""The gap between a predicted and the realised next state, and the reward for closing it."""
