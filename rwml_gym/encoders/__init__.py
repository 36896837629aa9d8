"""Frozen encoders: from texts and numbers to the vectors in which predictions are compared."""
