"""Delete an instance."""
