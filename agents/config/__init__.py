"""Configurations of the jobs, without torch."""
