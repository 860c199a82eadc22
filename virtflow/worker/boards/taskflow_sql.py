"""TaskFlow's own JobBoard interface on the SQL board's table, for users of plain TaskFlow.

``taskflow.jobs.backends.fetch("name", {"board": "virtflow", "connection": "postgresql://..."}, persistence=backend)``

What TaskFlow's other boards lack: a claim ends when its process dies, and does not end while it lives (a thread extends
it, however long a task takes); jobs come by priority, the oldest first; attempts are counted, and a job that kills its
workers is set aside; what is trashed stays visible (``trashed``).
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
import uuid as uuid_module
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from virtflow import eventletless  # noqa: F401 - before TaskFlow

from taskflow import exceptions as exc  # isort: skip
from taskflow import states
from taskflow.jobs import base

from virtflow.errors import DatabaseError
from virtflow.persistence.database import Database
from virtflow.persistence.job_news import JobNews, news_of
from virtflow.persistence.posting import CLAIMED, PARKED, READY, check_topic
from virtflow.persistence.taskflow_jobs import TaskflowJobs, TaskflowRow
from virtflow.worker.boards.listening import Listening, listening

LOG = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_COMPLETE: str = states.COMPLETE
_STATES: dict[str, str] = {READY: states.UNCLAIMED, CLAIMED: states.CLAIMED, PARKED: states.FAILURE}


class SqlJob(base.Job):
    """A job on a SqlJobBoard."""

    board: SqlJobBoard

    def __init__(self, board: SqlJobBoard, row: TaskflowRow, *, backend: Any = None, book: Any = None) -> None:
        payload = row.payload
        about = {"uuid": row.uuid, "details": payload["details"], "book_data": payload["book"]}
        super().__init__(board, payload["name"], backend=backend, book=book, **about)
        self._row = row

    @property
    def created_on(self) -> datetime.datetime:
        return _datetime(self._row.created_at)

    @property
    def last_modified(self) -> datetime.datetime:
        row = self.board.row(self) or self._row
        return _datetime(row.claimed_at or row.created_at)

    @property
    def priority(self) -> base.JobPriority:
        return base.JobPriority.convert(self._row.priority)

    @property
    def state(self) -> str:
        """UNCLAIMED, CLAIMED, COMPLETE (consumed) or FAILURE (trashed)."""
        row = self.board.row(self)
        return _COMPLETE if row is None else _STATES[row.state]

    @property
    def attempts(self) -> int:
        """How often it was claimed without having been consumed or abandoned."""
        row = self.board.row(self)
        return 0 if row is None else row.attempts

    def expires_in(self) -> float:
        """Seconds until the claim ends unless it is extended; -1 when nobody holds it."""
        row = self.board.row(self)
        return -1 if row is None or row.expires_in is None else row.expires_in / 1e6

    def extend_expiry(self, expiry: float) -> bool:
        """Hold it for that many seconds from now; False when it is held by somebody else, or nobody."""
        return self.board.extend(self, expiry)

    def wait(self, timeout: float | None = None, **delays: Any) -> bool:
        """As TaskFlow's, but raises JobFailure when the job was trashed: it will not complete."""
        watched = _TrashAware(self)
        return bool(base.Job.wait(watched, timeout, **delays))


class _TrashAware:
    """What ``Job.wait`` looks at."""

    def __init__(self, job: SqlJob) -> None:
        self._job = job

    @property
    def state(self) -> str:
        state = self._job.state
        if state == states.FAILURE:
            raise exc.JobFailure(f"Job {self._job.uuid} was trashed")
        return state


class SqlJobBoard(base.NotifyingJobBoard):
    """Options: ``connection`` (a database URL; migrated), ``path`` (several boards in one database; its name) and
    ``lease`` (seconds after which a dead owner's job is free, 15) and ``max_attempts`` (5).
    """

    def __init__(
        self, name: str, conf: Mapping[str, Any], persistence: Any = None, database: Database | None = None
    ) -> None:
        super().__init__(name, conf)
        self._persistence = persistence
        self._given = database
        self._topic = check_topic(f"taskflow.{conf.get('path', name)}")
        self._lease = float(conf.get("lease", 15.0))
        self._max_attempts = int(conf.get("max_attempts", 5))
        self._claims: dict[str, tuple[str, int, bool]] = {}
        """By uuid: owner, number of the claim, whether it is extended by the board."""
        self._lock = threading.RLock()
        self._open: _Open | None = None

    # -- the connection

    @property
    def connected(self) -> bool:
        return self._open is not None

    def connect(self) -> None:
        with self._lock:
            if self._open is None:
                database = self._given or _database(self._conf)
                self._open = _Open(self, database, database is not self._given)

    def close(self) -> None:
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    # -- reading

    @property
    def job_count(self) -> int:
        return self._ask(lambda stored: stored.count())

    def iterjobs(self, only_unclaimed: bool = False, ensure_fresh: bool = False) -> Iterator[SqlJob]:
        """Most urgent first, then oldest. Every iterator reads the database when it is begun."""
        wanted = (READY,) if only_unclaimed else (READY, CLAIMED)

        def fetch(ensure_fresh: bool = False) -> list[SqlJob]:  # noqa: ARG001 - it always is
            return [self._job(row) for row in self._ask(lambda stored: stored.rows(*wanted))]

        options = {"only_unclaimed": only_unclaimed, "ensure_fresh": ensure_fresh}
        jobs: Iterator[SqlJob] = base.JobBoardIterator(self, LOG, board_fetch_func=fetch, **options)
        return jobs

    def trashed(self) -> list[SqlJob]:
        """What was trashed, or set aside after too many attempts."""
        return [self._job(row) for row in self._ask(lambda stored: stored.rows(PARKED))]

    def wait(self, timeout: float | None = None) -> Iterator[SqlJob]:
        """An iterator as soon as there is a job that can be claimed. Raises NotFound after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            opened = self._opened()
            mark = opened.listening.mark([self._topic])
            if self._ask(lambda stored: stored.rows(READY)):
                return self.iterjobs(only_unclaimed=True)
            left = self._lease if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise exc.NotFound(f"No job to claim came within {timeout} seconds")
            opened.listening.sleep([self._topic], mark, left)

    def find_owner(self, job: SqlJob) -> str | None:
        row = self.row(job)
        return None if row is None else row.owner

    def row(self, job: SqlJob) -> TaskflowRow | None:
        """What the database knows of a job; None when it was consumed."""
        return self._ask(lambda stored: stored.get(job.uuid))

    # -- working

    def post(
        self,
        name: str,
        book: Any = None,
        details: Mapping[str, Any] | None = None,
        priority: base.JobPriority = base.JobPriority.NORMAL,
    ) -> SqlJob:
        uuid = str(uuid_module.uuid4())
        about = None if book is None else {"name": book.name, "uuid": book.uuid}
        payload = {"name": name, "details": dict(details or {}), "book": about}
        rank = base.JobPriority.convert(priority).value.lower()
        self._ask(lambda stored: stored.add(uuid, rank, payload))
        row = self._ask(lambda stored: stored.get(uuid))
        row = row or TaskflowRow(uuid, READY, rank, payload, None, 0, 0, 0, None, None, None)
        return SqlJob(self, row, backend=self._persistence, book=book)

    def claim(self, job: SqlJob, who: str, expiry: float | None = None) -> None:
        """With ``expiry`` (seconds) the claim ends then, unless the caller extends it; otherwise the board does."""
        _check_name(who)
        row = self._existing(job)
        if row.state != READY:
            raise exc.UnclaimableJob(f"Job {job.uuid} already claimed by '{row.owner}'")
        if row.attempts >= self._max_attempts:
            error = f"claimed {row.attempts} times without being finished"
            self._ask(lambda stored: stored.park(row, error))
            raise exc.UnclaimableJob(f"Job {job.uuid} set aside: {error}")
        if not self._ask(lambda stored: stored.claim(row, who, expiry or self._lease)):
            raise exc.UnclaimableJob(f"Job {job.uuid} was claimed by another at the same time")
        with self._lock:
            self._claims[job.uuid] = (who, row.claim + 1, expiry is None)

    def consume(self, job: SqlJob, who: str) -> None:
        row = self._owned(job, who)
        self._settle(job, self._ask(lambda stored: stored.remove(row)))

    def abandon(self, job: SqlJob, who: str) -> None:
        row = self._owned(job, who)
        self._settle(job, self._ask(lambda stored: stored.give_back(row)))

    def trash(self, job: SqlJob, who: str) -> None:
        """Set it aside: it keeps its row, and ``trashed`` lists it."""
        row = self._owned(job, who)
        self._settle(job, self._ask(lambda stored: stored.park(row, f"trashed by {who}")))

    def extend(self, job: SqlJob, seconds: float) -> bool:
        """Hold a job that was claimed through this board for that long from now."""
        with self._lock:
            claim = self._claims.get(job.uuid)
        return claim is not None and self._extend(job.uuid, claim[1], seconds)

    def register_entity(self, entity: Any) -> None:
        self._ask(lambda stored: stored.register(entity.kind, entity.name, entity.metadata))

    def registered(self) -> list[Mapping[str, Any]]:
        """The entities, as plain data."""
        return self._ask(lambda stored: stored.entities())

    # -- inside

    def extend_claims(self) -> None:
        """Extend what was claimed without an expiry of its own; forget what was lost."""
        with self._lock:
            mine = [(uuid, claim) for uuid, (_who, claim, ours) in self._claims.items() if ours]
        for uuid, claim in mine:
            if not self._extend(uuid, claim, self._lease):
                with self._lock:
                    lost = self._claims.get(uuid, ("", 0, False))[1] == claim
                    if lost:
                        del self._claims[uuid]
                if lost:
                    LOG.warning("Claim of job %s was lost: its lease had run out", uuid)

    def present(self) -> dict[str, SqlJob]:
        """By uuid, what is on the board now."""
        return {row.uuid: self._job(row) for row in self._ask(lambda stored: stored.rows(READY, CLAIMED))}

    @property
    def lease(self) -> float:
        return self._lease

    @property
    def topic(self) -> str:
        return self._topic

    def _job(self, row: TaskflowRow) -> SqlJob:
        return SqlJob(self, row, backend=self._persistence)

    def _existing(self, job: SqlJob) -> TaskflowRow:
        row = self.row(job)
        if row is None:
            raise exc.NotFound(f"Job {job.uuid} is not on the board")
        return row

    def _owned(self, job: SqlJob, who: str) -> TaskflowRow:
        """The row as ``who`` claimed it; when this board made the claim it must be that very claim."""
        _check_name(who)
        row = self._existing(job)
        if row.owner is None:
            raise exc.NotFound(f"Job {job.uuid} is claimed by nobody")
        with self._lock:
            known = self._claims.get(job.uuid, (who, row.claim, False))
        if row.owner != who or known[:2] != (who, row.claim):
            raise exc.JobFailure(f"Job {job.uuid} is not owned by '{who}' (any more) but by '{row.owner}'")
        return row

    def _extend(self, uuid: str, claim: int, seconds: float) -> bool:
        return self._ask(lambda stored: stored.extend(uuid, claim, seconds))

    def _settle(self, job: SqlJob, done: bool) -> None:
        with self._lock:
            self._claims.pop(job.uuid, None)
        if not done:
            raise exc.JobFailure(f"Job {job.uuid} was taken over at the same time")

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None:
            raise exc.JobFailure(f"Job board {self.name} is not connected")
        return opened

    def _ask(self, question: Callable[[TaskflowJobs], _Result]) -> _Result:
        try:
            return question(self._opened().stored)
        except DatabaseError as error:
            raise exc.JobFailure(f"Job board {self.name} cannot reach its database: {error}") from error


class _Open:
    """What a connected board has: its rows, what wakes it, and a thread that extends claims and tells of changes."""

    def __init__(self, board: SqlJobBoard, database: Database, owned: bool) -> None:
        self._board = board
        self._database = database
        self._owned = owned
        self._closing = threading.Event()
        self.stored = TaskflowJobs(database, board.topic)
        self.news: JobNews = news_of(database)
        self.listening: Listening = listening(database, self.news)
        self._known: dict[str, SqlJob] = {}
        self._thread = threading.Thread(target=self._run, name=f"virtflow-board-{board.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self.news.tell(None)
        self._thread.join()
        self.listening.close()
        if self._owned:
            self._database.close()

    def _run(self) -> None:
        pause = self._board.lease / 3
        extend_at = time.monotonic() + pause
        while not self._closing.is_set():
            mark = self.listening.mark([self._board.topic])
            try:
                if time.monotonic() >= extend_at:
                    extend_at = time.monotonic() + pause
                    self._board.extend_claims()
                if len(self._board.notifier):
                    self._tell()
            except exc.JobFailure:
                if not self._closing.is_set():
                    LOG.warning("Job board %s could not extend its claims", self._board.name, exc_info=True)
                    self._closing.wait(min(pause, 1.0))
            if not self._closing.is_set():
                self.listening.sleep([self._board.topic], mark, max(0.0, extend_at - time.monotonic()))

    def _tell(self) -> None:
        """Notify of what came and went since the last time."""
        present = self._board.present()
        for event, these, those in ((base.POSTED, present, self._known), (base.REMOVAL, self._known, present)):
            for uuid in these.keys() - those.keys():
                self._board.notifier.notify(event, {"job": these[uuid]})
        self._known = present


def _check_name(who: object) -> None:
    if not isinstance(who, str):
        raise TypeError("who claims a job must be a string")
    if not who:
        raise ValueError("who claims a job must have a name")


def _database(conf: Mapping[str, Any]) -> Database:
    if "connection" not in conf:
        raise ValueError("the option 'connection' must be the URL of a database")
    return Database(conf["connection"])


def _datetime(microseconds: int) -> datetime.datetime:
    """Naive, UTC: as everywhere in TaskFlow."""
    moment = datetime.datetime.fromtimestamp(microseconds / 1e6, datetime.UTC)
    return moment.replace(tzinfo=None)
