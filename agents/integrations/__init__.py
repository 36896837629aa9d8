"""Our rewards and environments in other frameworks: TRL, Inspect, verifiers, Stable-Baselines3."""
