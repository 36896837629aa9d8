"""The engines that play ALFWorld games: ours, and stock TextWorld as its reference."""
