"""What is written to be read again: files, hashes of them, journals, a cache."""
