"""What a log record is about: the operation, flow, task and host at work in the thread that logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NOTHING = "-"
_about: ContextVar[str] = ContextVar("virtflow_log_about", default=NOTHING)


@contextmanager
def about(operation: str, flow: str, task: str, host: str) -> Iterator[None]:
    """Whatever this thread logs while the block runs is about this task."""
    token = _about.set(f"{operation} {flow}/{task} {host}")
    try:
        yield
    finally:
        _about.reset(token)


class ContextFilter(logging.Filter):
    """Gives every record ``about``: ``OPERATION FLOW/TASK HOST``, or a dash."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.about = _about.get()
        return True
