"""The tables of the claims: what each one runs, what is expected of it, its results and its page."""
