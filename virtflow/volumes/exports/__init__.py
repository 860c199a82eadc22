"""Servers on a backend's host that let other hosts reach its volumes."""
