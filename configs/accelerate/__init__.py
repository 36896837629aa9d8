"""Settings of `accelerate launch`, a file for each kind of machine; a package, so that the wheel holds them too."""
