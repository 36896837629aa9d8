"""What plays an ALFWorld game: the compiled engine, and stock TextWorld as its reference."""
