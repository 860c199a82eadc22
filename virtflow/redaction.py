"""Secrets that this process has read are remembered here, so that no log, failure or message can carry them.

The store holds only references. But a program that a task runs may quote its input in an error, so every failure text
passes through ``scrub`` before it is stored or shown, and ``RedactingFilter`` does the same for log records.
"""

from __future__ import annotations

import logging
import math
import threading
import time

MASK = "***"
FOR_GOOD = math.inf
_SHORTEST = 4
_lock = threading.Lock()
_known: dict[str, float] = {}


def remember(secret: str | bytes, seconds: float = FOR_GOOD) -> None:
    """Register a secret value, and each longer line of a multi-line one, for so long from now.

    Values under 4 characters would mask noise. What is over is dropped here: a process that lives for months and reads
    the secrets of many operations does not keep them all.
    """
    text = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else secret
    parts = {text, text.strip(), *(line.strip() for line in text.splitlines() if len(line.strip()) >= 8)}
    now = time.monotonic()
    with _lock:
        for over in [part for part, until in _known.items() if until < now]:
            del _known[over]
        for part in parts:
            if len(part) >= _SHORTEST:
                _known[part] = max(_known.get(part, 0.0), now + seconds)


def scrub(text: str) -> str:
    """The text with every known secret replaced by ``***``, longest first."""
    if not _known:
        return text
    with _lock:
        known = sorted(_known, key=len, reverse=True)
    for secret in known:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


class RedactingFilter(logging.Filter):
    """Scrubs the finished message of every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _known:
            record.msg, record.args = scrub(record.getMessage()), None
            if record.exc_info and not record.exc_text:
                record.exc_text = scrub(logging.Formatter().formatException(record.exc_info))
        return True
