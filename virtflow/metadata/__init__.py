"""What a guest learns about itself, and the config drive that tells it."""
