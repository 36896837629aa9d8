"""Agents, and the rollout that plays them."""
