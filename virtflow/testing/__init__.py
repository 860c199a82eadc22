"""Shipped helpers for testing flows: fault sweep, residue audit, a tiny guest."""
