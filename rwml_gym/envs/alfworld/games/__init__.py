"""Where ALFWorld games come from: official files, and a generator."""
