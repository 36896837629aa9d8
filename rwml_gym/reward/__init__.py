"""The gap between the predicted and the realised next state, and the reward computed from it."""
