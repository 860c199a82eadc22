"""What every job board can do. The conductor uses this, and nothing else of a board.

A board only carries the news that there is something to do; what it is, and whether it is still to be done, stands in
the database. Delivery is at least once: a job whose owner died, or was slower than its lease, is claimed by another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from virtflow.persistence.posting import (
    CLAIMED,
    OPERATIONS,
    PARKED,
    PRIORITIES,
    READY,
    JobRecord,
    Posting,
    check_topic,
    host_topic,
    job_name,
    parse_details,
)

__all__ = [
    "CLAIMED",
    "OPERATIONS",
    "PARKED",
    "PRIORITIES",
    "READY",
    "Board",
    "JobRecord",
    "Posting",
    "check_topic",
    "host_topic",
    "job_name",
    "parse_details",
]


class Board(Protocol):
    """Thread-safe. Every method may raise BoardUnreachable; it has tried for a while then.

    A job that was claimed is known by its id, owner and number of the claim: what comes from an earlier claim changes
    nothing, and the method says so by returning False.
    """

    def post(self, posting: Posting) -> str:
        """Put it on the board; its id. While a job of that name waits, or is parked, nothing more is posted.

        One that waits out a delay can be claimed at once, for there is news. One that is being worked on becomes READY
        again when it is finished: whoever works on it may have looked before there was this news.
        """

    def claim(self, topics: Sequence[str], owner: str, lease_seconds: float) -> JobRecord | None:
        """The most urgent job of these topics, oldest first within a priority; None when there is none.

        Raises its attempts. One that was claimed too often without an end is parked instead, and so is one whose
        content is invalid. ``owner`` must be unique to a process.
        """

    def extend(self, job: JobRecord, lease_seconds: float) -> bool:
        """Hold it for that long from now. False: it is lost, and whoever works on it must stop."""

    def finish(self, job: JobRecord) -> bool:
        """It is done: off the board, or READY again where it was posted meanwhile."""

    def give_back(self, job: JobRecord, delay: float = 0.0, error: str | None = None) -> bool:
        """Let others have it, ``delay`` seconds from now.

        Without an error the attempt does not count (the worker drains). With one it does, and after the last it is
        parked.
        """

    def park(self, job: JobRecord, error: str) -> bool:
        """Put it aside, visibly, until somebody unparks it."""

    def set_aside(self, job_id: str, error: str) -> bool:
        """Park a job that waits. False: there is none, or somebody has it."""

    def unpark(self, job_id: str) -> bool:
        """Let it be claimed again, its attempts counted from 0. False: there is no such parked job."""

    def release(self, job_id: str) -> bool:
        """Take it from its owner. False: nobody has it."""

    def jobs(self, topic: str | None = None, limit: int = 1000) -> list[JobRecord]:
        """What is on the board, whatever its state, in the order in which it would be claimed; parked ones last."""

    def wait(self, topics: Sequence[str], timeout: float) -> bool:
        """Sleep until there may be something to claim. False after ``timeout`` seconds without news."""

    def close(self) -> None:
        """Give connections and threads back; whoever waits returns. Claims stay until they expire."""
