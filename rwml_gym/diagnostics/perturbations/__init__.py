"""Labelled pairs of texts for calibration: rewordings and falsifications of realised states, by kind of state."""
