"""Volumes on their backend: what a driver does, and the drivers."""
