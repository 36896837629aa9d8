"""Language models: loading, prompts, sampling, log-probabilities, predictions."""
