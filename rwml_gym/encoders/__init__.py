"""Frozen encoders, which turn texts and numbers into the vectors that are compared."""
