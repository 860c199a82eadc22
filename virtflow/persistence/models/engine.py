"""Tables of the engine: operations, the flows and atoms of TaskFlow, their journal, and the ledger."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from virtflow.persistence.models.base import IDENTITY, MICROSECONDS, NAME, UUID, PlainJSON, metadata

operations = Table(
    "operations",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("kind", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("target", NAME, nullable=False),
    Column("request", PlainJSON, nullable=False),
    Column("project", NAME, nullable=False),
    Column("parent", UUID, nullable=True),
    Column("group", UUID, nullable=True),
    Column("idempotency_key", NAME, nullable=True),
    Column("state", String(24), nullable=False),
    Column("outcome", String(24), nullable=True),
    Column("error", Text, nullable=True),
    Column("cancel_requested", Integer, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("started_at", MICROSECONDS, nullable=True),
    Column("finished_at", MICROSECONDS, nullable=True),
    UniqueConstraint("project", "idempotency_key"),
    # With their times: of those that are not done the oldest are looked at, of those that are the oldest forgotten.
    Index("ix_operations_state", "state", "created_at"),
    Index("ix_operations_finished", "finished_at"),
    Index("ix_operations_outcome", "outcome"),
    Index("ix_operations_parent", "parent"),
    Index("ix_operations_target", "target"),
    Index("ix_operations_group", "group"),
)
"""One row per user request; a request for several instances is one row each, with the same ``group``.

Its id is also the id of its TaskFlow logbook.
"""

claims = Table(
    "claims",
    metadata,
    Column("subject", UUID, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("owner", NAME, nullable=True),
    Column("touched_at", MICROSECONDS, nullable=False),
)
"""Who runs an operation. Each claim raises ``epoch``; a write of an older epoch is refused, whoever sends it.

``owner`` is ``host:pid:boot:start`` of the process that runs it, NULL when nobody does.
"""

targets = Table(
    "targets",
    metadata,
    Column("target", NAME, primary_key=True),
    Column("operation", UUID, ForeignKey("operations.id", ondelete="CASCADE"), nullable=False),
    Index("ix_targets_operation", "operation"),
)
"""What an operation in progress holds, such as ``instance:web1``: one row per target, so one operation at a time."""

logbooks = Table(
    "logbooks",
    metadata,
    Column("uuid", UUID, primary_key=True),
    Column("name", NAME, nullable=True),
    Column("meta", PlainJSON, nullable=True),
    Column("created_at", MICROSECONDS, nullable=True),
    Column("updated_at", MICROSECONDS, nullable=True),
)

flows = Table(
    "flows",
    metadata,
    Column("uuid", UUID, primary_key=True),
    Column("logbook", UUID, ForeignKey("logbooks.uuid", ondelete="CASCADE"), nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("name", NAME, nullable=True),
    Column("state", String(24), nullable=True),
    Column("meta", PlainJSON, nullable=True),
    Index("ix_flows_logbook", "logbook"),
    sqlite_with_rowid=False,
)

atoms = Table(
    "atoms",
    metadata,
    Column("uuid", UUID, primary_key=True),
    Column("flow", UUID, ForeignKey("flows.uuid", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", NAME, nullable=False),
    Column("version", String(16), nullable=True),
    Column("state", String(24), nullable=True),
    Column("intention", String(16), nullable=True),
    Column("meta", PlainJSON, nullable=True),
    Column("results", PlainJSON, nullable=True),
    Column("failure", PlainJSON, nullable=True),
    Column("revert_results", PlainJSON, nullable=True),
    Column("revert_failure", PlainJSON, nullable=True),
    # Not unique: TaskFlow's interface allows two details of one name. That a flow has one engine is the claim's work.
    Index("ix_atoms_flow", "flow", "position"),
    sqlite_with_rowid=False,
)

journal = Table(
    "journal",
    metadata,
    Column("flow", UUID, ForeignKey("flows.uuid", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("atom", NAME, nullable=True),
    Column("event", String(24), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", MICROSECONDS, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("host", NAME, nullable=True),
    Column("data", PlainJSON, nullable=True),
    sqlite_with_rowid=False,
)
"""Append-only: every transition of every flow (atom is null) and atom, with each attempt. Rows are never updated.

``sequence`` counts within the flow, so that a batch that is sent again after a lost connection cannot be doubled.
"""

ledger = Table(
    "ledger",
    metadata,
    Column("id", IDENTITY, primary_key=True, autoincrement=True),
    Column("operation", UUID, nullable=False),
    Column("flow", UUID, nullable=False),
    Column("task", NAME, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("identity", String(440), nullable=False),
    Column("host", NAME, nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", PlainJSON, nullable=True),
    Column("error", Text, nullable=True),
    Column("attempts", Integer, nullable=False),
    Column("created_at", MICROSECONDS, nullable=False),
    Column("updated_at", MICROSECONDS, nullable=False),
    UniqueConstraint("flow", "task", "kind", "identity"),
    Index("ix_ledger_operation", "operation"),
    Index("ix_ledger_state", "state"),
)
"""What tasks are about to make, written before they make it. State: INTENDED, PRESENT, CLEARED, DEBT."""
