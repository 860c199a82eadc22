"""A board of records that are compared and swapped: the same on Redis, ZooKeeper and etcd, which differ in the store.

TaskFlow's own boards for these three are not underneath. What a worker needs could not be added around them:

- To claim one job they list the whole backlog, in an order of their own (LOW before HIGH on ZooKeeper and etcd, newest
  first on Redis).
- Claiming, counting the attempt and taking a lease must be one write; theirs is one of them.
- Giving up a job on etcd reads, then deletes: who lost it takes it from its next owner. On Redis, anyone may extend.
- A posting that they cannot read is deleted on Redis and etcd, and on Redis ends the worker.
- Each posting gets a new random name: what is posted twice is done twice.

With posting, claiming, consuming, abandoning, listing and waiting replaced, nothing of a class would be left but the
making of the client.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from virtflow.errors import BoardUnreachable
from virtflow.persistence.models.base import now
from virtflow.worker.boards.board import CLAIMED, PARKED, READY, JobRecord, Posting, check_topic
from virtflow.worker.boards.news import News
from virtflow.worker.boards.stored_job import Entry, StoredJob, posted

LOG = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds for which a server that does not answer is asked again."""
_WIDTH = 8
"""Jobs that are looked at for one claim: where many claim at once, they do not all want the same one."""
_SWEEP = 1.0
"""Seconds between two looks for jobs whose owner was lost, unless there was news of one."""
_TRIES = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """A job as its store has it; ``version`` is the store's own, and changes with every write.

    ``found_at``: the entry that led to it, when that is not known to be its own.
    """

    job: StoredJob
    version: Any
    found_at: Entry | None = None

    @property
    def entry(self) -> Entry:
        """What has to go when the record is replaced."""
        return self.found_at or self.job.entry


@dataclass
class Look:
    """What a store showed. ``ready``: in order; ``overdue``: delayed ones whose moment came, and lost ones.

    ``due``: seconds until there may be more that is overdue; None when nothing is foreseen. ``removed``: entries
    without a job were in the way, and are no longer.
    """

    ready: list[Kept] = field(default_factory=list)
    overdue: list[Kept] = field(default_factory=list)
    due: float | None = None
    removed: bool = False


class Store(Protocol):
    """Where the records are. Thread-safe. Its methods raise one of ``unreachable`` when the server does not answer."""

    @property
    def unreachable(self) -> tuple[type[Exception], ...]:
        """What it raises when the server does not answer."""

    @property
    def news(self) -> News:
        """What it hears from the server."""

    @property
    def url(self) -> str:
        """Without its password."""

    def read(self, job_id: str) -> Kept | None:
        """The record of this id."""

    def swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        """Replace the record, and with it its entries; False, and nothing is changed, if it is no longer ``old``.

        ``lease``: seconds from now for which the claim holds, where a claim is made or extended.
        """

    def look(self, topics: Sequence[str], width: int, lost: bool) -> Look:
        """The first jobs of each topic. ``lost``: look for those whose owner is gone, too."""

    def listing(self, topic: str | None, limit: int) -> list[Kept]:
        """The first ones of each index, in any order."""

    def listen(self, topics: Sequence[str]) -> None:
        """From now on, ``news`` hears of these topics."""

    def reconnect(self) -> None:
        """The server did not answer; it will be asked again."""

    def close(self) -> None:
        """Give everything back."""


class StoredBoard:
    """A ``Board``. See there."""

    def __init__(self, store: Store, max_attempts: int) -> None:
        self._store = store
        self._max_attempts = max_attempts
        self._swept = float("-inf")

    def post(self, posting: Posting) -> str:
        job = posted(posting)
        if self._swap(None, job):
            return job.id
        for _ in _tries():
            kept = self._ask(lambda: self._store.read(job.id))
            if kept is None or kept.job.foreign is not None:
                wanted = job
            elif kept.job.state == CLAIMED and not kept.job.again:
                wanted = replace(kept.job, again=True)
            else:
                return job.id
            if self._swap(kept, wanted):
                return job.id
        raise self._contended(job.id)

    def claim(self, topics: Sequence[str], owner: str, lease_seconds: float) -> JobRecord | None:
        topics = [check_topic(topic) for topic in topics]
        for _ in _tries():
            look = self._look(topics, _WIDTH)
            for kept in look.overdue:
                self._recover(kept)
            for kept in sorted(look.ready, key=lambda kept: kept.job.entry.place):
                if self._unfit(kept):
                    continue
                claimed = kept.job.claimed(owner, now(), lease_seconds)
                if self._swap(kept, claimed, lease_seconds):
                    return claimed.record()
            if not look.ready and not look.overdue:
                return None
        return None

    def extend(self, job: JobRecord, lease_seconds: float) -> bool:
        return self._change(job, lambda held: held.extended(now(), lease_seconds), lease_seconds)

    def finish(self, job: JobRecord) -> bool:
        return self._change(job, StoredJob.finished)

    def give_back(self, job: JobRecord, delay: float = 0.0, error: str | None = None) -> bool:
        return self._change(job, lambda held: held.given_back(now(), delay, error, self._max_attempts))

    def park(self, job: JobRecord, error: str) -> bool:
        return self._change(job, lambda held: held.parked(error))

    def set_aside(self, job_id: str, error: str) -> bool:
        return self._become(job_id, lambda job: job.state == READY, lambda job: job.parked(error))

    def unpark(self, job_id: str) -> bool:
        return self._become(job_id, lambda job: job.state == PARKED, StoredJob.unparked)

    def release(self, job_id: str) -> bool:
        return self._become(job_id, lambda job: job.state == CLAIMED, StoredJob.released)

    def jobs(self, topic: str | None = None, limit: int = 1000) -> list[JobRecord]:
        kept = self._ask(lambda: self._store.listing(topic, limit))
        found = {one.job.id: one.job for one in kept}.values()
        ordered = sorted(found, key=lambda job: (job.state == PARKED, replace(job, not_before=None).entry.place))
        return [job.record() for job in ordered[:limit]]

    def wait(self, topics: Sequence[str], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        topics = [check_topic(topic) for topic in topics]
        news = self._store.news
        while not news.closed:
            known = news.so_far(topics)
            self._ask(lambda: self._store.listen(topics))
            self._swept = float("-inf")
            look = self._look(topics, 1)
            if look.ready or look.overdue:
                self._swept = float("-inf")  # the claim that follows is to find what is overdue
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            news.wait(topics, known, left if look.due is None else min(left, look.due))
        return False

    def close(self) -> None:
        self._store.news.close()
        self._store.close()

    def _look(self, topics: Sequence[str], width: int) -> Look:
        lost = time.monotonic() - self._swept > _SWEEP
        look = Look(removed=True)
        while look.removed and not (look.ready or look.overdue):
            look = self._ask(lambda: self._store.look(topics, width, lost))
        if lost:
            self._swept = time.monotonic()
        return look

    def _recover(self, kept: Kept) -> None:
        recovered = kept.job.recovered(self._max_attempts)
        if self._swap(kept, recovered) and recovered.error is not None:
            LOG.warning("job %s %s (attempt %d)", kept.job.id, recovered.error, recovered.attempts)

    def _unfit(self, kept: Kept) -> bool:
        """Whether it was one that nobody may run; it is parked."""
        if kept.job.foreign is not None:
            error = kept.job.error or "not a job of virtflow"
        elif kept.job.attempts >= self._max_attempts:
            error = kept.job.error or f"claimed too often without an end (attempts: {kept.job.attempts})"
        else:
            return False
        if self._swap(kept, kept.job.parked(error)):
            LOG.warning("job %s is parked: %s", kept.job.id, error)
        return True

    def _change(
        self, job: JobRecord, become: Callable[[StoredJob], StoredJob | None], lease: float | None = None
    ) -> bool:
        return self._become(job.id, lambda held: held.held_by(job), become, lease)

    def _become(
        self,
        job_id: str,
        fits: Callable[[StoredJob], bool],
        become: Callable[[StoredJob], StoredJob | None],
        lease: float | None = None,
    ) -> bool:
        for _ in _tries():
            kept = self._ask(lambda: self._store.read(job_id))
            if kept is None or not fits(kept.job):
                return False
            if self._swap(kept, become(kept.job), lease):
                return True
        raise self._contended(job_id)

    def _swap(self, old: Kept | None, new: StoredJob | None, lease: float | None = None) -> bool:
        """Like the store's, and true also when the write had been made, but its answer was lost."""
        one = old.job if old is not None else new
        assert one is not None
        asked = 0

        def swap() -> bool:
            nonlocal asked
            asked += 1
            if asked > 1:
                found = self._store.read(one.id)
                if (found.job if found else None) == new:
                    return True
            return self._store.swap(old, new, lease)

        return self._ask(swap)

    def _ask(self, question: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        pause = 0.05
        while True:
            try:
                return question()
            except self._store.unreachable as error:
                if time.monotonic() > deadline or self._store.news.closed:
                    raise BoardUnreachable(url=self._store.url, reason=_reason(error)) from error
                time.sleep(pause)
                pause = min(pause * 2, 0.5)
                self._store.reconnect()

    def _contended(self, job_id: str) -> BoardUnreachable:
        return BoardUnreachable(url=self._store.url, reason=f"job {job_id} changes whenever it is to be written")


def _tries() -> Any:
    """So often is something tried again because others were quicker; after the first times with pauses."""
    for number in range(_TRIES):
        if number > 2:
            time.sleep(random.uniform(0, 0.02))  # noqa: S311
        yield number


def _reason(error: Exception) -> str:
    return str(error) or getattr(error, "detail_text", None) or type(error).__name__
