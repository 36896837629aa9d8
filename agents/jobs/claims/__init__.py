"""Running the tables of the claims."""
