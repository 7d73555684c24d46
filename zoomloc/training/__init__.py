"""How a model is made: examples, losses, the loop."""
