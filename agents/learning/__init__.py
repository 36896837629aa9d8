"""The updates: GRPO, credit, supervised fine-tuning, the training loop and its checkpoints."""
