"""The graphs. A folder per operation: operation.py is the parent flow, each other file one segment."""

from virtflow import eventletless  # noqa: F401 - before TaskFlow
