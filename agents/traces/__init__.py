"""What an evaluation wrote down: steps, episodes, and who played what."""
