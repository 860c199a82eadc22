"""Whether anybody else has written to a database since one last looked, where that can be seen without a query."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.database import Database


class SqliteChanges:
    """Watches ``PRAGMA data_version``, which another connection's commit changes: microseconds, and no query.

    Thread-safe; with a connection of its own, from the first look on.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._connection: Any = None
        self._version: int | None = None
        self._count = 0

    def count(self) -> int:
        """More than at the last call if there was a commit since, or if nobody can know."""
        with self._lock:
            try:
                version = self._data_version()
            except (sa.exc.SQLAlchemyError, sqlite3.Error):
                version = None  # the query that follows says why
            if version is None or version != self._version:
                self._version = version
                self._count += 1
            return self._count

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _data_version(self) -> int:
        if self._connection is None:
            fairy = self._database.engine.raw_connection()
            self._connection = fairy.driver_connection
            fairy.detach()
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version
