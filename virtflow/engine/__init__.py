"""The only code that drives TaskFlow engines: run, resume, undo, cancel, verdict."""

from virtflow import eventletless  # noqa: F401 - before TaskFlow
