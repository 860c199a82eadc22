"""How who waits for jobs learns of what other processes post, on each kind of database."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from virtflow.persistence.changes import SqliteChanges
from virtflow.persistence.database import Database
from virtflow.persistence.job_news import JobNews
from virtflow.persistence.job_statements import CHANNEL

_LONGEST_SLEEP = 5.0
"""Seconds after which who sleeps looks again whatever happens: a connection can be cut without either end noticing."""

_RECONNECT_PAUSE = 0.1
_LONGEST_RECONNECT_PAUSE = 5.0


class Listening:
    """MariaDB, and what the others have in common: wakes at once for postings of this process, and looks often."""

    shortest_pause, longest_pause = 0.02, 0.25
    """Seconds between two looks, while jobs keep coming and when there were none for a while."""

    def __init__(self, database: Database, news: JobNews) -> None:
        self._database = database
        self._news = news
        self._slept_for_nothing = 0

    def mark(self, topics: Sequence[str]) -> int:
        """Take this before looking at the board, and give it to ``sleep``."""
        return self._news.mark(topics)

    def sleep(self, topics: Sequence[str], mark: int, seconds: float) -> None:
        """Until it is worth while to look again, at most that long."""
        if self._news.wait(topics, mark, min(seconds, self._pause())):
            self._slept_for_nothing = 0
        else:
            self._slept_for_nothing += 1

    def close(self) -> None:
        """Give connections and threads back."""

    def _pause(self) -> float:
        """Longer the longer there was nothing."""
        return min(self.shortest_pause * 1.2**self._slept_for_nothing, self.longest_pause)


class SqliteListening(Listening):
    """Looks often whether another process has committed anything, which costs next to nothing."""

    longest_pause = 0.02

    def __init__(self, database: Database, news: JobNews) -> None:
        super().__init__(database, news)
        self._changes = SqliteChanges(database)

    def mark(self, topics: Sequence[str]) -> int:
        return self._changes.count() + self._news.mark(topics)

    def sleep(self, topics: Sequence[str], mark: int, seconds: float) -> None:
        deadline = time.monotonic() + min(seconds, _LONGEST_SLEEP)
        while (left := deadline - time.monotonic()) > 0:
            if self._news.wait(topics, mark - self._changes.count(), min(left, self._pause())):
                self._slept_for_nothing = 0
                return
            self._slept_for_nothing += 1

    def close(self) -> None:
        self._changes.close()


class PostgresListening(Listening):
    """A thread that listens on a connection of its own, from the first sleep on, and connects again when it is lost."""

    def __init__(self, database: Database, news: JobNews) -> None:
        super().__init__(database, news)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._heard = threading.Event()
        """Set while LISTEN is in force."""
        self._wake, self._stop = os.pipe()

    def mark(self, topics: Sequence[str]) -> int:
        self._start()
        return super().mark(topics)

    def sleep(self, topics: Sequence[str], mark: int, seconds: float) -> None:
        if self._heard.is_set():
            self._slept_for_nothing = 0
            self._news.wait(topics, mark, min(seconds, _LONGEST_SLEEP))
        else:
            super().sleep(topics, mark, seconds)

    def close(self) -> None:
        with self._lock:
            if self._stop < 0:
                return
            os.close(self._stop)
            self._stop = -1
        if self._thread is not None:
            self._thread.join()
        os.close(self._wake)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and self._stop >= 0:
                self._thread = threading.Thread(target=self._run, name="virtflow-jobs", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = _RECONNECT_PAUSE
        while True:
            connection: Any = None
            try:
                connection = self._connect()
                pause = _RECONNECT_PAUSE
                if self._listen(connection):
                    return
            except (sa.exc.SQLAlchemyError, OSError, self._lost()):
                pass
            finally:
                self._heard.clear()
                if connection is not None:
                    with suppress(Exception):
                        connection.close()
            if select.select([self._wake], [], [], pause)[0]:
                return
            pause = min(2 * pause, _LONGEST_RECONNECT_PAUSE)

    def _connect(self) -> Any:
        fairy = self._database.engine.raw_connection()
        connection: Any = fairy.driver_connection
        fairy.detach()
        connection.rollback()
        connection.autocommit = True
        connection.execute(f"LISTEN {CHANNEL}")
        self._heard.set()
        self._news.tell(None)  # what was posted while nobody listened
        return connection

    def _listen(self, connection: Any) -> bool:
        """Tell what is notified; True when the board is closed. Raises the driver's error when the server is gone."""
        libpq = connection.pgconn
        while True:
            libpq.consume_input()
            while (notice := libpq.notifies()) is not None:
                self._news.tell(notice.extra.decode(errors="replace"))
            if self._wake in select.select([libpq.socket, self._wake], [], [])[0]:
                return True

    def _lost(self) -> type[Exception]:
        dbapi: Any = self._database.engine.dialect.dbapi
        error: type[Exception] = dbapi.Error
        return error


def listening(database: Database, news: JobNews) -> Listening:
    """What suits the database."""
    kinds = {"sqlite": SqliteListening, "postgresql": PostgresListening, "mysql": Listening}
    return kinds[database.dialect](database, news)
