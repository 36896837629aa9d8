"""Those who act and learn: baselines, language models, next-state SFT and GRPO (RWML stage 1)."""
