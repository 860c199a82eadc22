"""The table of what resized instances look like: until the first resize, that is what their spawn has recorded."""

from __future__ import annotations

from sqlalchemy import Column, Table

from virtflow.persistence.models.base import NAME, UUID, PlainJSON, metadata

instance_specs = Table(
    "instance_specs",
    metadata,
    Column("instance", UUID, primary_key=True),
    Column("operation", UUID, nullable=False),
    Column("spec", PlainJSON, nullable=False),
    Column("previous_spec", PlainJSON, nullable=True),
    Column("previous_host", NAME, nullable=True),
)
"""One row per instance that was ever resized or moved. ``operation`` did it last; ``spec`` is the specification since.

While that operation can still be reverted, ``previous_spec`` and ``previous_host`` are what it would bring back; a
confirmation empties them.
"""
