"""Resize an instance, or move it while it is shut down; and confirm that."""
