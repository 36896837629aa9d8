"""Jobs about world models by themselves, whoever trained them."""
