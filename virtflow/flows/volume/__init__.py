"""Volumes: made, attached, extended, kept, and removed. Each operation has a module, and one for its host."""
