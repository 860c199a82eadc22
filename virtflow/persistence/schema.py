"""The schema: which version a database has, which one this virtflow needs, and how to get there.

Only ``upgrade`` imports Alembic: a command that merely checks the schema does not pay for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from virtflow.errors import DatabaseError, HostStorageError, SchemaMismatch
from virtflow.persistence.database import Database
from virtflow.persistence.migrations import HEAD, VERSION_TABLE

_version = sa.table(VERSION_TABLE, sa.column("version_num"))
_LOCK = 0x76697274
"""The number of PostgreSQL's advisory lock that upgrades take: "virt" in ASCII."""
_LOCK_SECONDS = 60
_one_at_a_time = threading.Lock()
"""Alembic hands its context to migrations in a module's globals."""


def head() -> str:
    """The version this virtflow needs."""
    return HEAD


def current(database: Database) -> str | None:
    """The version the database has; None if it has none. It is not created by being asked. DatabaseError."""
    if database.path is not None and not database.path.exists():
        return None
    with database.connect() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        version: str | None = connection.execute(sa.select(_version.c.version_num)).scalar()
    return version


def check(database: Database) -> None:
    """DatabaseError if there is no schema, or one of a newer virtflow; SchemaMismatch if it must be upgraded."""
    found = current(database)
    if found is None:
        raise DatabaseError(url=database.url, reason="missing: run `virtflow db upgrade`")
    if found > HEAD:
        raise DatabaseError(url=database.url, reason=f"schema {found} is of a newer virtflow (this one needs {HEAD})")
    if found != HEAD:
        raise SchemaMismatch(url=database.url, found=found, needed=HEAD)


def upgrade(database: Database) -> None:
    """Bring the database to this virtflow's version, in one transaction (MariaDB commits each statement).

    A second process that upgrades at the same time waits, then finds nothing to do. A SQLite file is made with mode
    0600. DatabaseError: a newer virtflow has been here, or the database cannot be reached.
    """
    if database.path is not None:
        _create_file(database.path)
    found = current(database)
    if found is not None and found > HEAD:
        check(database)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with _one_at_a_time, database.transaction() as connection, _locked(database, connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def ensure(database: Database) -> None:
    """What an embedded user expects: an SQLite file is made and upgraded on the way; a server's schema is checked."""
    if database.path is not None and current(database) != HEAD:
        upgrade(database)
    else:
        check(database)


@contextmanager
def _locked(database: Database, connection: sa.Connection) -> Iterator[None]:
    """On SQLite the write transaction itself keeps others out."""
    if database.dialect == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if database.dialect != "mysql":
        yield
        return
    if connection.execute(sa.select(sa.func.get_lock(VERSION_TABLE, _LOCK_SECONDS))).scalar() != 1:
        raise DatabaseError(url=database.url, reason="another process is upgrading it")
    try:
        yield
    finally:
        connection.execute(sa.select(sa.func.release_lock(VERSION_TABLE)))


def _create_file(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file."""
    try:
        if not path.exists():
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise HostStorageError(action="create database", path=path, reason=error.strerror) from error
