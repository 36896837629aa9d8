"""One HTML page of runs: results, curves, histograms of gaps, and a viewer of what happened in every episode."""
