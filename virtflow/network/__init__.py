"""Addresses, taps and filters of ports."""
