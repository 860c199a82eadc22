"""The time that claims and heartbeats are measured by: one clock for all hosts, the database server's.

One host writes when it lived last, and another compares that with now. Each of them has a clock of its own; how far
that is from the server's is found out with every new connection.
"""

from __future__ import annotations

from typing import Any

from virtflow.persistence.models.base import now

_QUESTIONS = {
    "postgresql": "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    "mysql": "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
}
_SMALL = 100_000
"""Microseconds of difference that are none: clocks that are kept by NTP are nearer than that."""


class Clock:
    """``ahead`` is by how many microseconds the server's clock is ahead of this host's; 0 where there is no server.

    A difference that is no greater than what the asking took is none, so that a slow answer moves no clock.
    """

    def __init__(self, dialect: str) -> None:
        self._question = _QUESTIONS.get(dialect)
        self.ahead = 0

    def now(self) -> int:
        """The time by the server's clock, in microseconds since the epoch."""
        return now() + self.ahead

    def in_words(self) -> str:
        """How far the clocks are apart."""
        side = "behind" if self.ahead > 0 else "ahead of"
        return f"this host's clock is {abs(self.ahead) / 1_000_000:.1f} s {side} the database's"

    def compare(self, cursor: Any) -> None:
        """Ask the server what time it is."""
        if self._question is None:
            return
        before = now()
        cursor.execute(self._question)
        told = int(cursor.fetchone()[0])
        after = now()
        ahead = told - (before + after) // 2
        self.ahead = ahead if abs(ahead) > max(_SMALL, after - before) else 0
