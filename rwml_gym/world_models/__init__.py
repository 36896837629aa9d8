"""World models: predictors of the next state."""
