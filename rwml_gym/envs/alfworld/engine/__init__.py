"""The engines that play ALFWorld games: the compiled one, and stock TextWorld as its reference."""
