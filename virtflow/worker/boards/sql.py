"""The board in the database itself: nothing more to run, and jobs are posted in the commit that makes them necessary.

Who waits for jobs sleeps until PostgreSQL notifies (LISTEN), or looks every now and then where the database cannot:
on SQLite at a counter of its file that costs no query, on MariaDB at one entry of an index. Postings of the same
process wake at once everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from virtflow.config.options import Config
from virtflow.errors import BoardUnreachable, DatabaseError
from virtflow.persistence.database import Database
from virtflow.persistence.jobs import JobRepository
from virtflow.persistence.posting import JobRecord, Posting
from virtflow.persistence.writer import Writer
from virtflow.worker.boards.listening import Listening, listening

_Result = TypeVar("_Result")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


def open_board(config: Config, database: Database) -> SqlBoard:
    """The board in ``database``."""
    return SqlBoard(database, max_attempts=config.jobboard.max_attempts)


class SqlBoard:
    """See ``Board``. While the database is away everything is tried again for ``patience`` seconds."""

    def __init__(
        self, database: Database, writer: Writer | None = None, *, max_attempts: int = 5, patience: float = 10.0
    ) -> None:
        self.database = database
        self._writer = writer or Writer(database, patience=0)
        self._owns_writer = writer is None
        self.repository = JobRepository(database, self._writer, max_attempts=max_attempts)
        self._patience = patience
        self._listening: Listening = listening(database, self.repository.news)
        self._closed = False

    def post(self, posting: Posting) -> str:
        return self._patiently(lambda: self.repository.post(posting))

    def claim(self, topics: Sequence[str], owner: str, lease_seconds: float) -> JobRecord | None:
        return self._patiently(lambda: self.repository.claim(topics, owner, lease_seconds))

    def extend(self, job: JobRecord, lease_seconds: float) -> bool:
        return self._patiently(lambda: self.repository.extend(job, lease_seconds))

    def finish(self, job: JobRecord) -> bool:
        return self._patiently(lambda: self.repository.finish(job))

    def give_back(self, job: JobRecord, delay: float = 0.0, error: str | None = None) -> bool:
        return self._patiently(lambda: self.repository.give_back(job, delay, error))

    def park(self, job: JobRecord, error: str) -> bool:
        return self._patiently(lambda: self.repository.park(job, error))

    def set_aside(self, job_id: str, error: str) -> bool:
        return self._patiently(lambda: self.repository.set_aside(job_id, error))

    def unpark(self, job_id: str) -> bool:
        return self._patiently(lambda: self.repository.unpark(job_id))

    def release(self, job_id: str) -> bool:
        return self._patiently(lambda: self.repository.release(job_id))

    def jobs(self, topic: str | None = None, limit: int = 1000) -> list[JobRecord]:
        return self._patiently(lambda: self.repository.jobs(topic, limit))

    def wait(self, topics: Sequence[str], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not self._closed:
            mark = self._listening.mark(topics)
            look = self._patiently(lambda: self.repository.look(topics))
            if look.claimable:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._listening.sleep(topics, mark, left if look.due_in is None else min(left, look.due_in))
        return False

    def close(self) -> None:
        self._closed = True
        self._listening.close()
        self.repository.news.tell(None)
        self.repository.close()
        if self._owns_writer:
            self._writer.close()

    def _patiently(self, call: Callable[[], _Result]) -> _Result:
        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return call()
            except DatabaseError as error:
                if self._closed or not self._passing(error) or time.monotonic() + pause > give_up:
                    fields: dict[str, Any] = {"url": self.database.url, "reason": error.fields["reason"]}
                    raise BoardUnreachable(**fields) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _passing(self, error: DatabaseError) -> bool:
        """Whether it may go away by itself: the server restarts, or somebody holds a lock."""
        cause = getattr(error.__cause__, "orig", None) or error.__cause__
        dbapi: Any = self.database.engine.dialect.dbapi
        return isinstance(cause, dbapi.OperationalError | dbapi.InterfaceError) and "no such table" not in str(cause)
