"""The jobs from games to a trained adapter."""
