"""Adapters: which kinds work, reading those of others, making them smaller, and those that come with the package."""
