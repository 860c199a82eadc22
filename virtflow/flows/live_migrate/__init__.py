"""Move an instance to another host while its guest runs."""
