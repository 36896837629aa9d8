"""What a finished run shows: tables, curves, a model card."""
