"""Images made of instances."""
