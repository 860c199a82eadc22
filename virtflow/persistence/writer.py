"""Commits batches of prepared statements, the batches of all threads that wait together in one transaction.

The thread that completes the company (on a fast disk: the one that finds nobody committing) becomes the leader and
commits for all that have queued: a lone flow commits without handing over to another thread, and on a slow disk eight
flows share one fsync. Each of the others sleeps until it is woken once, when its batch is durable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import UpdateBase

from virtflow import faults
from virtflow.errors import DatabaseError, StaleEpoch
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import claims

_PARAMETER_STYLES = {"sqlite": "qmark", "postgresql": "numeric_dollar", "mysql": "format"}
_SLOW = 0.0005
"""Seconds of a commit from which on it pays to wait for company."""
_SLOWEST = 0.02
"""Seconds of a commit beyond which it is not the disk that is slow."""

_LOOK = 0.5
"""Seconds after which a thread that waits looks whether it was forgotten: its leader may have been interrupted."""

Batch = list[tuple["Statement", Sequence[Any]]]


@dataclass(frozen=True)
class Statement:
    """A statement compiled once: its text in the driver's own parameter style, positional."""

    sql: str
    columns: tuple[str, ...]
    fence: bool = False


class _Waiting:
    """One thread's batch. The thread sleeps on a lock of its own: it is woken when there is something for it to do."""

    __slots__ = ("_asleep", "batch", "done", "error")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done = False
        self.error: BaseException | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, seconds: float) -> None:
        self._asleep.acquire(timeout=seconds)

    def wake(self) -> None:
        with suppress(RuntimeError):  # nobody has slept since it was woken last
            self._asleep.release()


class Writer:
    """Group commit for one database. Thread-safe. ``commits`` and ``statements`` count what was sent.

    ``patience`` is how long, in seconds, a commit is tried again while the database is away or locked.
    """

    def __init__(self, database: Database, *, patience: float = 30.0) -> None:
        self.database = database
        self.patience = patience
        self.commits = 0
        self.statements = 0
        self._queue: list[_Waiting] = []
        self._turn = threading.Lock()
        """Held while who leads is decided; never while something is sent."""
        self._leading = False
        self._company = 1
        self._pace = 0.0
        self._gathering_until = 0.0
        self._connection: Any = None
        self._pipeline: Any = None

    def compile(self, statement: UpdateBase, *, fence: bool = False) -> Statement:
        """Turn a Core statement into driver text; the parameters' order is ``columns``."""
        dialect: Any = type(self.database.engine.dialect)
        style = _PARAMETER_STYLES[self.database.dialect]
        compiled: Any = statement.compile(dialect=dialect(paramstyle=style))
        return Statement(str(compiled), tuple(compiled.positiontup or ()), fence)

    def write(self, batch: Batch) -> None:
        """Commit the batch; all of it or nothing. Returns when it is durable.

        Raises StaleEpoch when a fence in it no longer holds, DatabaseError when the database stays away.
        """
        mine = _Waiting(batch)
        together = self._join(mine)
        while together is None:
            mine.sleep(self._patience_of_one())
            if mine.done:
                break
            together = self._take(mine)
        if together is not None:
            self._lead(together)
        if mine.error is not None:
            raise mine.error

    def close(self) -> None:
        """Give the connection back; the next write opens another."""
        while True:
            with self._turn:
                if not self._leading:
                    self._disconnect()
                    return
            time.sleep(0.001)

    def _join(self, mine: _Waiting) -> list[_Waiting] | None:
        """Queue up. What to commit, if it is this thread that shall: the last one of those that were expected.

        On a slow disk the flows that shared the last commit are waited for: it is shorter than the sync that they
        would need. Without this the flows fall into two groups that wait for each other's syncs.
        """
        with self._turn:
            self._queue.append(mine)
            if self._leading:
                return None
            if self._pace > _SLOW and len(self._queue) < self._company:
                if len(self._queue) == 1:
                    self._gathering_until = time.monotonic() + self._pace / 2
                return None
            return self._become_leader()

    def _take(self, mine: _Waiting) -> list[_Waiting] | None:
        """What to commit when the company did not come in time."""
        with self._turn:
            if mine.done or self._leading or mine not in self._queue:
                return None
            if len(self._queue) < self._company and time.monotonic() < self._gathering_until:
                return None
            return self._become_leader()

    def _become_leader(self) -> list[_Waiting]:
        self._leading = True
        together, self._queue = self._queue, []
        return together

    def _patience_of_one(self) -> float:
        """Seconds after which a thread that was not woken looks for itself."""
        return _LOOK if self._leading else max(self._gathering_until - time.monotonic(), 0.0)

    def _lead(self, together: list[_Waiting]) -> None:
        start = time.monotonic()
        try:
            self._commit_all(together)
        finally:
            end = time.monotonic()
            for entry in together:
                if not entry.done:  # this thread was interrupted: nobody knows whether it is committed
                    entry.error = DatabaseError(url=self.database.url, reason="interrupted while it wrote")
                    entry.done = True
            with self._turn:
                self._pace = 0.8 * self._pace + 0.2 * min(end - start, _SLOWEST)
                self._company = len(together) + len(self._queue)
                self._gathering_until = end + self._pace / 2
                self._leading = False
                late = self._queue[:1]
            for entry in together + late:
                entry.wake()

    def _commit_all(self, together: list[_Waiting]) -> None:
        try:
            self._commit([entry.batch for entry in together])
        except Exception as error:  # noqa: BLE001 - handed to the threads that wait
            if len(together) == 1:
                together[0].error = error
            else:
                for entry in together:
                    try:
                        self._commit([entry.batch])
                    except Exception as own:  # noqa: BLE001
                        entry.error = own
        for entry in together:
            entry.done = True

    def _commit(self, batches: list[Batch]) -> None:
        dbapi: Any = self.database.engine.dialect.dbapi
        give_up = time.monotonic() + self.patience
        pause = 0.05
        while True:
            try:
                self._send(batches)
            except dbapi.IntegrityError as error:
                self._rollback()
                raise self._refusal(batches, error) from error
            except (KeyboardInterrupt, SystemExit):
                self._disconnect()  # in the middle of whatever it was
                raise
            except dbapi.Error as error:
                self._rollback()
                self._disconnect()
                passing = isinstance(error, dbapi.OperationalError | dbapi.InterfaceError)
                if not passing or time.monotonic() > give_up:
                    raise DatabaseError(url=self.database.url, reason=str(error).splitlines()[0]) from error
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
            else:
                self.commits += 1
                self.statements += sum(map(len, batches))
                return

    def _send(self, batches: list[Batch]) -> None:
        points = faults.active
        number = points.before_write() if points is not None else 0
        self._transact(batches)
        if points is not None:
            points.after_write(number)

    def _transact(self, batches: list[Batch]) -> None:
        connection = self._connected()
        if self.database.dialect == "sqlite":
            with self.database.write_lock:
                connection.execute("BEGIN IMMEDIATE")
                for batch in batches:
                    for statement, values in batch:
                        connection.execute(statement.sql, values)
                connection.execute("COMMIT")
        elif self.database.dialect == "postgresql":
            self._pipeline.transact([(statement.sql, values) for batch in batches for statement, values in batch])
        else:
            with connection.cursor() as cursor:
                connection.begin()
                for batch in batches:
                    for statement, values in batch:
                        cursor.execute(statement.sql, values)
                connection.commit()

    def _connected(self) -> Any:
        if self._connection is None:
            try:
                fairy = self.database.engine.raw_connection()
            except sa.exc.DBAPIError as error:
                raise (error.orig or error) from error
            connection: Any = fairy.driver_connection
            fairy.detach()
            if self.database.dialect == "postgresql":
                from virtflow.persistence.pipeline import Pipeline

                connection.rollback()
                connection.autocommit = True
                self._pipeline = Pipeline(connection)
            self._connection = connection
        return self._connection

    def _rollback(self) -> None:
        if self._connection is not None and self.database.dialect != "postgresql":
            with suppress(Exception):
                self._connection.rollback()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    def _refusal(self, batches: list[Batch], error: Exception) -> Exception:
        """A fence sets the epoch to NULL when it is stale, which the database refuses: one statement, no reading."""
        fences = [values for batch in batches for statement, values in batch if statement.fence]
        text = str(error).lower()
        if len(fences) == 1 and "epoch" in text and "null" in text:
            return StaleEpoch(operation=fences[0][-1], epoch=fences[0][0])
        return error


def fence_statement(writer: Writer) -> Statement:
    """``(epoch, touched_at, subject)``: refuses the whole transaction unless the claim is still at that epoch."""
    holds = sa.case((claims.c.epoch == sa.bindparam("held"), claims.c.epoch), else_=sa.null())
    statement = (
        sa.update(claims)
        .where(claims.c.subject == sa.bindparam("claimed"))
        .values(touched_at=sa.bindparam("touched"), epoch=holds)
    )
    return writer.compile(statement, fence=True)
