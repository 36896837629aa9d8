"""Vector environments of text: many episodes at once, in this process or in worker processes."""
