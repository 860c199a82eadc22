"""The one database: how it is opened, and what a transaction is.

SQLite runs in WAL mode with synchronous=FULL and foreign keys on; its write transactions begin IMMEDIATE and are
serialised by a lock within the process, so threads queue fairly instead of polling the file lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from virtflow import faults
from virtflow.errors import DatabaseError, VirtflowError
from virtflow.persistence import fencing
from virtflow.persistence.clock import Clock

DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_CONNECTIONS = 5
"""How many a process has in its pool on a server. Connections are what a server of many workers runs out of first;
whoever waits for one waits for milliseconds. Nobody who has one may ask for another."""
_TURN = 300.0
"""Seconds that a thread waits for its turn with one of them. A machine that is busy beyond measure is no reason to give
an operation up: with SQLAlchemy's 30, some were reverted on one that left its workers next to no CPU."""
_FRESH = 1.0
"""Seconds for which a connection that was used is believed to be good."""
_RECYCLE = 300
"""Seconds after which a connection is made anew: with each of them the clocks are compared."""


class Database:
    """An opened database. Connections are pooled and made when first used; nothing is checked before that.

    ``busy_timeout`` is how long, in seconds, a write waits for another process on SQLite; on a server, after how long a
    transaction is ended whose process does nothing.
    """

    def __init__(self, url: str, *, busy_timeout: float = 10.0) -> None:
        try:
            parsed = sa.make_url(url)
            dialect = DIALECTS[parsed.get_backend_name()]
        except (sa.exc.ArgumentError, KeyError) as error:
            raise DatabaseError(url=_safe(url), reason="not a sqlite, postgresql or mysql URL") from error
        if parsed.drivername in _DRIVERS:
            parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
        self.url = parsed.render_as_string(hide_password=True)
        self.dialect = dialect
        self.path = Path(parsed.database) if dialect == "sqlite" and parsed.database else None
        self.busy_timeout = busy_timeout
        self.write_lock = threading.RLock()
        self.clock = Clock(dialect)
        self.engine = self._create(parsed)
        autocommit = {"isolation_level": "AUTOCOMMIT"} if dialect == "postgresql" else {}
        self._reading = self.engine.execution_options(**autocommit)

    def _create(self, url: sa.URL) -> sa.Engine:
        options: dict[str, Any] = {"hide_parameters": True, "poolclass": QueuePool}
        if self.dialect == "sqlite":
            options |= {"pool_size": 16, "max_overflow": 48}
            options["connect_args"] = {"timeout": self.busy_timeout, "check_same_thread": False}
        else:
            options |= {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_use_lifo": True}
            options |= {"pool_timeout": _TURN, "pool_recycle": _RECYCLE}
        try:
            engine = sa.create_engine(url, **options)
        except ModuleNotFoundError as error:
            raise DatabaseError(url=self.url, reason=f"its driver {error.name} is not installed") from error
        if self.dialect == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", self._prepare_server)
            event.listen(engine, "checkout", partial(_look_after, engine))
            event.listen(engine, "checkin", _note_use)
        return engine

    def _prepare_server(self, connection: Any, _record: Any) -> None:
        """Have the server end a transaction whose process sleeps, or cannot be reached: others wait for its locks.

        And find out how far this host's clock is from the server's.
        """
        limit = max(1, round(self.busy_timeout))
        cursor = connection.cursor()
        if self.dialect == "postgresql":
            cursor.execute(f"SET SESSION idle_in_transaction_session_timeout = '{limit}s'")
        else:
            cursor.execute("SHOW VARIABLES LIKE 'idle_transaction_timeout'")  # MariaDB has it, MySQL has not
            if cursor.fetchone():
                cursor.execute(f"SET SESSION idle_transaction_timeout = {limit}")
        self.clock.compare(cursor)
        cursor.close()
        connection.commit()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """A write transaction: committed at the end, rolled back by any exception.

        With ``durable=False``, SQLite does not wait for the disk: after a power cut the change may be missing, but
        nothing that was committed before a later durable transaction is.

        Within a task's body: StaleEpoch when its operation was taken over.
        """
        lock = self.write_lock if self.dialect == "sqlite" else nullcontext()
        with lock, self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(virtflow_write="FULL" if durable else "NORMAL")
            points = faults.active
            number = 0
            with connection.begin():
                fencing.check(connection)
                yield connection
                if points is not None:
                    number = points.before_write()
            if points is not None:
                points.after_write(number)

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection to read from. On SQLite and MariaDB what it reads is one snapshot.

        PostgreSQL gives each statement a snapshot of its own whether or not there is a transaction around them, so
        there is none: beginning and ending it would take two more round trips.
        """
        with self._translated(), self._reading.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise DatabaseError(url=self.url, reason=_reason(error)) from error
        except VirtflowError:
            raise
        except (DBAPIError, SQLAlchemyError) as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            raise DatabaseError(url=self.url, reason=_reason(error)) from error


def _look_after(engine: sa.Engine, connection: Any, record: Any, _proxy: Any) -> None:
    """Whether a connection that has not been used for a while still leads anywhere: the server may have restarted.

    Asking costs a round trip, and threads that work come by many times a second.
    """
    if time.monotonic() - record.info.get("used", 0.0) < _FRESH:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        alive = False
    if not alive:
        raise sa.exc.InvalidatePoolError  # all others are as old: the pool connects anew


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """What a commit waits for is a setting of the connection, and cannot be changed within a transaction."""
    wanted = connection.get_execution_options().get("virtflow_write")
    if wanted is not None and connection.info.get("synchronous", "FULL") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info["synchronous"] = wanted
    connection.exec_driver_sql("BEGIN" if wanted is None else "BEGIN IMMEDIATE")


def _reason(error: SQLAlchemyError) -> str:
    origin = getattr(error, "orig", None) or error
    text = str(origin).strip().splitlines()
    reason = text[0] if text else type(origin).__name__
    if "no such table" in reason or "does not exist" in reason:
        return f"{reason}: run `virtflow db upgrade`"
    return reason


def _safe(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.split('//')[0]}//***@{tail}" if at else url
