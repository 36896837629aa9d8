"""The environments: ALFWorld, τ²-bench, and a toy house that is the template for others."""
