"""What decides: encoders and the zoom transformer. Arrays and indices only."""
