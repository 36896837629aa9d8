"""The sources of ALFWorld games: official files, and a generator."""
