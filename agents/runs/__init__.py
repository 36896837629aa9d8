"""Runs: their folder, environment and games, model, and the steps that all jobs take in them."""
