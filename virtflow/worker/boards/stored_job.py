"""A job as a board of plain records keeps it, and everything that can become of it: pure, the same on every server.

Redis, ZooKeeper and etcd each keep one record per job and a few ordered indexes that are derived from it. What the
indexes say follows from the record (``entry``), so a server only has to replace record and entries in one transaction.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from virtflow.errors import InvalidJob
from virtflow.persistence.posting import (
    CLAIMED,
    PARKED,
    PRIORITIES,
    READY,
    JobRecord,
    Posting,
    check_topic,
    job_name,
    parse_details,
)

DELAYED = "DELAYED"
"""The index of jobs that are READY, but not before some moment. Nobody outside sees this state."""

KINDS = (READY, DELAYED, CLAIMED, PARKED)

_SHOWN = 2000
"""Characters that are kept of a record that is none of ours."""
_LATEST = 10**17 - 1


class Entry(NamedTuple):
    """Where a job stands in the indexes. Places of one index sort as text in the order that matters there."""

    kind: str
    topic: str
    place: str

    @property
    def id(self) -> str:
        """The job's."""
        return id_at(self.place)


@dataclass(frozen=True)
class StoredJob:
    """Times in microseconds since the epoch. ``claim`` grows with each claim, also of another job of that id.

    ``again``: it was posted while it was worked on. ``foreign`` is the beginning of a record that is not one of ours.
    """

    id: str
    topic: str
    operation: str
    segment: str | None
    priority: str
    created_at: int
    state: str = READY
    attempts: int = 0
    claim: int = 0
    owner: str | None = None
    claimed_at: int | None = None
    expires_at: int | None = None
    lease: float = 0.0
    not_before: int | None = None
    again: bool = False
    error: str | None = None
    foreign: str | None = None

    @property
    def entry(self) -> Entry:
        """Where it must stand."""
        if self.state == READY and self.not_before is not None:
            return Entry(DELAYED, self.topic, _place(0, self.not_before, self.id))
        return Entry(self.state, self.topic, _place(PRIORITIES.index(self.priority), self.created_at, self.id))

    def record(self) -> JobRecord:
        """What others see of it."""
        name = job_name(self.operation, self.segment) if self.foreign is None else self.id
        seen = {field.name: getattr(self, field.name) for field in fields(JobRecord) if field.name != "name"}
        return JobRecord(name=name, **seen)

    def held_by(self, job: JobRecord) -> bool:
        """Whether it is claimed, and by that very claim."""
        return (self.state, self.owner, self.claim) == (CLAIMED, job.owner, job.claim)

    def claimed(self, owner: str, now: int, lease: float) -> StoredJob:
        """In the hands of ``owner``."""
        return replace(
            self,
            state=CLAIMED,
            owner=owner,
            attempts=self.attempts + 1,
            # The time is part of the number: after the server lost everything, numbers of before do not come again.
            claim=max(self.claim + 1, now),
            claimed_at=now,
        ).extended(now, lease)

    def extended(self, now: int, lease: float) -> StoredJob:
        """Held for another ``lease`` seconds."""
        return replace(self, lease=lease, expires_at=now + int(lease * 1e6))

    def finished(self) -> StoredJob | None:
        """Gone, or waiting anew when it was posted meanwhile."""
        return replace(self._free(), attempts=0, error=None) if self.again else None

    def given_back(self, now: int, delay: float, error: str | None, max_attempts: int) -> StoredJob:
        """Waiting again, from ``delay`` seconds on; parked after the last attempt that failed."""
        if error is None:
            freed = replace(self._free(), attempts=max(self.attempts - 1, 0))
        elif self.attempts >= max_attempts:
            return self.parked(error)
        else:
            freed = replace(self._free(), error=error)
        return replace(freed, not_before=now + int(delay * 1e6)) if delay > 0 else freed

    def recovered(self, max_attempts: int) -> StoredJob:
        """After its delay, or after its owner was lost."""
        if self.state != CLAIMED:
            return replace(self, not_before=None)
        error = f"lost its worker: {self.owner}"
        return self.parked(error) if self.attempts >= max_attempts else replace(self._free(), error=error)

    def parked(self, error: str) -> StoredJob:
        """Put aside."""
        return replace(self._free(), state=PARKED, error=error)

    def unparked(self) -> StoredJob:
        """Waiting again, with all its attempts before it."""
        return replace(self._free(), attempts=0, error=None)

    def released(self) -> StoredJob:
        """Taken from its owner."""
        return self._free()

    def _free(self) -> StoredJob:
        free = replace(self, state=READY, owner=None, claimed_at=None, expires_at=None)
        return replace(free, lease=0.0, not_before=None, again=False)


def posted(posting: Posting) -> StoredJob:
    """A job as it begins."""
    return StoredJob(
        id=job_id(posting.name),
        topic=posting.topic,
        operation=posting.operation,
        segment=posting.segment,
        priority=posting.priority,
        created_at=posting.created_at,
    )


def job_id(name: str) -> str:
    """The id of the one job that may have this name: it has no slash, which means something to some servers."""
    return name.replace("/", ".")


def id_at(place: str) -> str:
    """The id in a place; empty when it is no place of ours."""
    rank, _, rest = place.partition(".")
    moment, _, found = rest.partition(".")
    return found if len(rank) == 1 and len(moment) == 17 and (rank + moment).isdigit() else ""


def encode(job: StoredJob) -> bytes:
    """The record. Equal jobs have equal records."""
    values = asdict(job)
    details = {"operation": values.pop("operation"), "segment": values.pop("segment")}
    return json.dumps({"details": details, **values}, sort_keys=True).encode()


def decode(found_id: str, topic: str, raw: bytes) -> StoredJob:
    """The job in a record of this id, that was found at this topic.

    Never raises: whoever can write to the server could otherwise stop every worker. What is not a job of ours comes
    back with ``foreign``, and is to be parked.
    """
    try:
        job = _checked(json.loads(raw))
        if job.id != found_id:
            raise InvalidJob(name=found_id, reason="it carries another id")
        return job
    except (InvalidJob, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = str(error) if isinstance(error, InvalidJob) else f"job {found_id!r} refused: not a job of virtflow"
        shown = raw[:_SHOWN].decode("utf-8", "replace")
        return StoredJob(found_id, topic, "", None, "normal", 0, error=reason, foreign=shown)


_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "created_at": (int,),
    "attempts": (int,),
    "claim": (int,),
    "owner": (str, type(None)),
    "claimed_at": (int, type(None)),
    "expires_at": (int, type(None)),
    "lease": (int, float),
    "not_before": (int, type(None)),
    "again": (bool,),
    "error": (str, type(None)),
    "foreign": (str, type(None)),
}


def _checked(values: Any) -> StoredJob:
    if not isinstance(values, dict):
        raise TypeError(values)
    details = values.pop("details")
    wrong = [name for name, types in _TYPES.items() if not isinstance(values[name], types)]
    if wrong or values["priority"] not in PRIORITIES or values["state"] not in (READY, CLAIMED, PARKED):
        raise ValueError(wrong)
    check_topic(values["topic"])
    if values["foreign"] is not None:
        return StoredJob(operation="", segment=None, **values)
    operation, segment = parse_details(details, values["id"])
    if job_id(job_name(operation, segment)) != values["id"]:
        raise InvalidJob(name=values["id"], reason="it carries another operation")
    return StoredJob(operation=operation, segment=segment, **values)


def _place(rank: int, moment: int, found_id: str) -> str:
    return f"{rank}.{min(max(moment, 0), _LATEST):017d}.{found_id}"
