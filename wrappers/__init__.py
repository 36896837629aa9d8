"""Gymnasium wrappers: rewards from a world model, and what records transitions."""
