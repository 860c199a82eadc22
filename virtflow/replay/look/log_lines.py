"""The lines of virtflow's log around a time. The log is read from its end, and not without limit."""

from __future__ import annotations

import re
import time
from pathlib import Path

_LARGEST = 16 << 20
_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}),(\d{3}) ")

_ABOUT = re.compile(r" \[([0-9a-f]{8}-[0-9a-f-]{27}) [^\]]+\] ")
"""What ``virtflow.log_context`` puts into a record of a task."""


def log_lines(
    path: Path | None, since: int, until: int, operation: str, *, around: float = 2.0, most: int = 40
) -> list[str]:
    """Lines written between the times (microseconds), ``around`` seconds more on either side, at most ``most``.

    Lines that say that they are about another operation are left out. Empty when there is no log, or none of that time.
    Lines without a time belong to the one before.
    """
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LARGEST))
            text = file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return []
    first, last = since - int(around * 1_000_000), until + int(around * 1_000_000)
    found, inside = [], False
    for line in text.splitlines():
        stamp = _STAMP.match(line)
        if stamp is not None:
            others = _ABOUT.search(line)
            inside = first <= _at(stamp) <= last and (others is None or others[1] == operation)
        if inside:
            found.append(line)
    return found[:most] + ([f"... and {len(found) - most} more lines"] if len(found) > most else [])


def _at(stamp: re.Match[str]) -> int:
    """The log's times are local ones."""
    seconds = time.mktime(time.strptime(stamp[1], "%Y-%m-%d %H:%M:%S"))
    return int(seconds) * 1_000_000 + int(stamp[2]) * 1000
