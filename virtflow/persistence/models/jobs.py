"""Tables of the SQL job board."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text

from virtflow.persistence.models.base import IDENTITY, MICROSECONDS, NAME, UUID, PlainJSON, metadata

jobs = Table(
    "jobs",
    metadata,
    Column("id", IDENTITY, primary_key=True, autoincrement=True),
    Column("name", NAME, nullable=False, unique=True),
    Column("topic", NAME, nullable=False),
    Column("operation", UUID, nullable=True),
    Column("segment", UUID, nullable=True),
    Column("payload", PlainJSON, nullable=True),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("place", Integer, nullable=True),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("due_at", MICROSECONDS, nullable=True),
    Column("owner", NAME, nullable=True),
    Column("claim", MICROSECONDS, nullable=False),
    Column("claimed_at", MICROSECONDS, nullable=True),
    Column("attempts", Integer, nullable=False),
    Column("again", Integer, nullable=False),
    Column("error", Text, nullable=True),
    # What claiming reads: the first entry of a topic, however many jobs wait behind it.
    Index("ix_jobs_claimable", "topic", "place", "created_at", "id"),
    Index("ix_jobs_due", "due_at"),
)
"""One row per job that waits, is being worked on, or is parked; a finished job has none.

``place`` is the priority (0 is the most urgent) while the job can be claimed and NULL otherwise, so that the index
of what can be claimed has nothing else in front. ``due_at`` is when it can be claimed by itself: the end of the lease
of a CLAIMED job, or of the delay of a READY one. ``claim`` rises with every claim, and begins with the time at which
the row was made, so that a name that is posted anew never sees the same number again. ``again``: posted while it was
CLAIMED. ``payload`` is what TaskFlow's own interface carries; jobs of operations have none.
"""

entities = Table(
    "job_entities",
    metadata,
    Column("topic", NAME, primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("name", NAME, primary_key=True),
    Column("details", PlainJSON, nullable=True),
    Column("registered_at", MICROSECONDS, nullable=False),
)
"""Who registered with a board through TaskFlow's interface (its conductors do)."""
