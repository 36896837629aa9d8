"""Vector text environments: many episodes at once, in this process or in worker processes."""
