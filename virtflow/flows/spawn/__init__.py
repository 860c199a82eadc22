"""Spawn an instance."""
