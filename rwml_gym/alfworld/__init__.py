"""ALFWorld as a text Gymnasium environment, on official and on generated games."""
