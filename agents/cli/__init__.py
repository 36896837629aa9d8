"""The `rwml-gym` command."""
