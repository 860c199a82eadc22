"""Alembic migrations. ``HEAD`` is the newest revision: here, so that checking a schema does not import Alembic."""

HEAD = "0001"
VERSION_TABLE = "virtflow_schema_version"
"""Not Alembic's default name: TaskFlow migrates its own tables with that one, and may share the database."""
