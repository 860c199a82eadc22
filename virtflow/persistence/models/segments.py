"""The table of segments that were handed to another process: what the host is asked to do, and what came of it."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text

from virtflow.persistence.models.base import MICROSECONDS, NAME, UUID, PlainJSON, metadata
from virtflow.persistence.models.engine import operations

segments = Table(
    "segments",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("operation", UUID, ForeignKey(operations.c.id, ondelete="CASCADE"), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("host", NAME, nullable=False),
    Column("verb", String(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("inputs", PlainJSON, nullable=False),
    Column("outputs", PlainJSON, nullable=True),
    Column("error", Text, nullable=True),
    Column("retry_elsewhere", Boolean, nullable=False),
    Column("debts", Integer, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
    Index("ix_segments_operation", "operation"),
    Index("ix_segments_host_state", "host", "state"),
    Index("ix_segments_state", "state"),
)
"""One row per segment that somebody else runs than the parent flow. Its id is that of its flow.

``verb`` is what the parent asks for, RUN or UNDO; ``state`` is REQUESTED, RUNNING, DONE, FAILED or UNDONE. Who runs it
is in ``claims``, under the segment's id.
"""
