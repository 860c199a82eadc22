"""Purge what a delete kept in the trash."""
