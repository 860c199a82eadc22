"""The metadata that all tables share, and the three column types they use.

Tables are SQLAlchemy Core, not mapped classes: rows become the frozen dataclasses of the repositories, every write
says what it writes, and a command that only lists things does not pay for importing an ORM.
"""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import BigInteger, Integer, MetaData, String, Text
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UUID = String(36)
NAME = String(255)
MICROSECONDS = BigInteger
"""Times are microseconds since the epoch, UTC: they compare and subtract the same on every database."""

IDENTITY = BigInteger().with_variant(Integer, "sqlite")
"""Autoincrementing key (SQLite counts only INTEGER PRIMARY KEY)."""


def now() -> int:
    """The current time in microseconds since the epoch."""
    return time.time_ns() // 1000


def isoformat(microseconds: int | None) -> str | None:
    """ISO 8601, UTC, milliseconds."""
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:03d}Z"


class PlainJSON(TypeDecorator[Any]):
    """JSON as text, written compactly. Only plain data passes: no datetime, set, NaN or object becomes a string."""

    impl = Text().with_variant(Text(2**24), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:  # noqa: ARG002
        return None if value is None else encode(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return None if value is None else json.loads(value)


encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
