"""Reaching a volume from the instance's host: what has to be there before QEMU can open it."""
