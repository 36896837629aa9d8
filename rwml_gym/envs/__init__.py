"""The environments: ALFWorld, τ²-bench, and a toy house as the template for others."""
