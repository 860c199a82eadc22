"""The scheduler's decisions, kept with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database
from virtflow.persistence.models.base import isoformat, now
from virtflow.persistence.models.decisions import decisions


@dataclass(frozen=True)
class DecisionRecord:
    """``document`` is ``virtflow.scheduler.Decision.to_dict()``; ``at`` in microseconds since the epoch."""

    id: int
    operation: str
    attempt: int
    at: int
    chosen: str | None
    document: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form."""
        told = {"attempt": self.attempt, "at": isoformat(self.at), "chosen": self.chosen}
        return told | {name: self.document.get(name) for name in ("alternates", "passed", "refused")}


class DecisionRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, operation: str, attempt: int, document: Mapping[str, Any]) -> None:
        """Keep a decision. ``attempt`` counts from 1."""
        row = {"operation": operation, "attempt": attempt, "at": now(), "chosen": document["chosen"]}
        with self._database.transaction() as connection:
            connection.execute(decisions.insert().values(**row, document=dict(document)))

    def of_operation(self, operation: str) -> list[DecisionRecord]:
        """One per attempt, in their order: of an attempt that was decided twice, the later one."""
        query = sa.select(decisions).where(decisions.c.operation == operation).order_by(decisions.c.id)
        with self._database.connect() as connection:
            found = [DecisionRecord(**row._mapping) for row in connection.execute(query)]
        return sorted({each.attempt: each for each in found}.values(), key=lambda each: each.attempt)

    def about_host(self, host: str, *, limit: int = 10, among: int = 200) -> list[DecisionRecord]:
        """The latest decisions that looked at the host, newest first: at most ``limit`` of the last ``among``."""
        query = sa.select(decisions).order_by(decisions.c.id.desc()).limit(among)
        with self._database.connect() as connection:
            rows = [DecisionRecord(**row._mapping) for row in connection.execute(query)]
        looked_at = (row for row in rows if host in row.document["passed"] or host in row.document["refused"])
        return [row for row, _number in zip(looked_at, range(limit), strict=False)]

    def remove_before(self, at: int) -> int:
        """Forget decisions older than that time (microseconds); how many they were."""
        with self._database.transaction() as connection:
            return connection.execute(decisions.delete().where(decisions.c.at < at)).rowcount
