"""The table of the scheduler's decisions: which host, and why not the others."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, Table

from virtflow.persistence.models.base import IDENTITY, MICROSECONDS, NAME, UUID, PlainJSON, metadata

decisions = Table(
    "decisions",
    metadata,
    Column("id", IDENTITY, primary_key=True, autoincrement=True),
    Column("operation", UUID, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", MICROSECONDS, nullable=False),
    Column("chosen", NAME, nullable=True),
    Column("document", PlainJSON, nullable=False),
    Index("ix_decisions_operation", "operation"),
    Index("ix_decisions_chosen", "chosen", "at"),
    Index("ix_decisions_at", "at"),
)
"""Append-only. A step that is executed again after a crash decides again: both decisions are here, the later one
counted."""
