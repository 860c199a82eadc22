"""What is posted on a job board, and what is seen there: plain data, checked whenever it comes from outside.

A job only says which operation there is something to do for. What that is stands in the database; whoever writes to a
board can wake a worker, but not tell it what to run.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from virtflow.errors import InvalidJob
from virtflow.persistence.models.base import isoformat, now

READY = "READY"
CLAIMED = "CLAIMED"
PARKED = "PARKED"

PRIORITIES = ("very_high", "high", "normal", "low", "very_low")
"""Most urgent first; the names are TaskFlow's."""

OPERATIONS = "operations"
"""The topic of whole operations."""

_ANSWER = "answer."

_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True)
class Posting:
    """There is something to do for an operation, or for one of its segments (the uuid of its flow).

    ``created_at`` (microseconds since the epoch) decides about the order within a priority. Raises InvalidJob.
    """

    topic: str
    operation: str
    segment: str | None = None
    priority: str = "normal"
    created_at: int = field(default_factory=now)

    def __post_init__(self) -> None:
        check_topic(self.topic)
        if self.priority not in PRIORITIES:
            raise InvalidJob(name=self.name, reason=f"no such priority: {self.priority!r}")
        if not isinstance(self.created_at, int) or isinstance(self.created_at, bool):
            raise InvalidJob(name=self.name, reason="created_at is not a number of microseconds")
        parse_details(self.details, self.name)

    @property
    def name(self) -> str:
        """What makes it unique: a board has one job of a name."""
        return job_name(self.operation, self.segment)

    @property
    def details(self) -> dict[str, str | None]:
        """All that a job carries."""
        return {"operation": self.operation, "segment": self.segment}


@dataclass(frozen=True)
class JobRecord:
    """A job as it was seen. Times in microseconds since the epoch.

    ``attempts`` counts the claims since it was posted that did not end well (the present one included); ``claim`` is
    the number of the claim, so that the same owner's earlier claim cannot pass for the later. ``error`` is the last.
    """

    id: str
    name: str
    topic: str
    operation: str
    segment: str | None
    state: str
    owner: str | None
    attempts: int
    created_at: int
    claimed_at: int | None
    expires_at: int | None
    priority: str
    error: str | None
    claim: int = 0
    not_before: int | None = None
    """Of a READY job that waits out a delay."""

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form."""
        names = ("id", "name", "topic", "operation", "segment", "state", "owner", "attempts", "priority", "error")
        times = ("created_at", "claimed_at", "expires_at", "not_before")
        return {name: getattr(self, name) for name in names} | {name: isoformat(getattr(self, name)) for name in times}


def job_name(operation: str, segment: str | None = None) -> str:
    """``<operation>`` or ``<operation>/<segment>``. A board that cannot have slashes writes ``.`` instead."""
    return operation if segment is None else f"{operation}/{segment}"


def host_topic(host: str) -> str:
    """The topic of a host's segments."""
    return f"host.{host}"


def answer_topic(segment: str) -> str:
    """Under which it is told that a segment has its verdict: nobody posts anything there."""
    return f"{_ANSWER}{segment}"


def answered_segment(topic: str) -> str | None:
    """The segment of such a topic; None of any other."""
    return topic.removeprefix(_ANSWER) if topic.startswith(_ANSWER) else None


def parse_details(details: object, name: str) -> tuple[str, str | None]:
    """``(operation, segment)`` of what a board carries under ``name``.

    Raises InvalidJob unless it is exactly ``{"operation": uuid, "segment": uuid or null}``.
    """
    if not isinstance(details, Mapping) or set(details) != {"operation", "segment"}:
        raise InvalidJob(name=name, reason="it must carry exactly an operation and a segment")
    operation, segment = details["operation"], details["segment"]
    if not _is_uuid(operation):
        raise InvalidJob(name=name, reason="operation is not a uuid")
    if segment is not None and not _is_uuid(segment):
        raise InvalidJob(name=name, reason="segment is not a uuid")
    return operation, segment


def check_topic(topic: object) -> str:
    """The topic. Raises InvalidJob when it is not one."""
    if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
        raise InvalidJob(name=str(topic)[:255], reason="not a topic")
    return topic


def _is_uuid(value: object) -> bool:
    """Whether it is a uuid in its canonical form: nothing else can be a key of the database."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
