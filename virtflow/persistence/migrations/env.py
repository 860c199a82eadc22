"""What Alembic runs: on the connection that ``schema.upgrade`` hands over, or, for a developer who writes a new
revision with the ``alembic`` command, on a SQLite database in ``VIRTFLOW_MIGRATION_DATABASE``."""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import context

from virtflow.persistence.migrations import VERSION_TABLE
from virtflow.persistence.models import metadata


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with sa.create_engine(f"sqlite:///{os.environ['VIRTFLOW_MIGRATION_DATABASE']}").begin() as own:
        _run(own)
