"""Evaluations: who plays which games, what is written down meanwhile, and what the scores say."""
