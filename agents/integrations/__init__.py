"""Our rewards and environments in other trainers: TRL, Stable-Baselines3."""
