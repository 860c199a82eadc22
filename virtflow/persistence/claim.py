"""Who runs an operation or a segment, at which epoch, and whether he still lives."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from virtflow.persistence.models.engine import claims

LEASE = 15.0
"""Seconds for which a claim holds without a sign of life, where nothing is configured."""


@dataclass(frozen=True)
class Claim:
    """The right to write for ``subject`` (an operation or a segment) at ``epoch``."""

    subject: str
    epoch: int


def owner_here(host: str) -> str:
    """This process, so that it can be told from a later one with the same pid: host, pid, start time, boot."""
    return json.dumps([host, os.getpid(), _started(os.getpid()), _boot()])


def owner_alive(owner: str) -> bool:
    """Whether the owner is a process of this machine that still runs."""
    return _known_alive(owner) is True


def owner_host(owner: str) -> str | None:
    """The host on which the owner runs or ran."""
    try:
        return str(json.loads(owner)[0])
    except (ValueError, LookupError, TypeError):
        return None


def this_machine() -> str:
    """What the owners of all processes that can be looked at from here have in common."""
    return json.dumps(_boot())


def holds(owner: str | None, touched_at: int | None, lease: float, at: int) -> bool:
    """Whether a claim still holds: its owner gave a sign of life (``touched_at``) less than ``lease`` seconds ago.

    ``at`` is the time now, by the database's clock.

    A process of this machine that is known to be gone holds nothing, however fresh its last sign.
    """
    if owner is None or touched_at is None or at - touched_at > lease * 1_000_000:
        return False
    return _known_alive(owner) is not False


def touch(connection: sa.Connection, held: list[Claim], at: int) -> list[Claim]:
    """Give a sign of life, at the time by the database's clock, for all of these; those that are lost."""
    lost = []
    for claim in held:
        mine = claims.c.subject == claim.subject, claims.c.epoch == claim.epoch
        if connection.execute(sa.update(claims).where(*mine).values(touched_at=at)).rowcount == 0:
            lost.append(claim)
    return lost


def _known_alive(owner: str) -> bool | None:
    """None: it is of another machine, or of another boot of this one, and cannot be looked at."""
    try:
        _host, pid, started, boot = json.loads(owner)
    except ValueError:
        return False
    if boot != _boot():
        return None
    return started is not None and _started(int(pid)) == started


def _started(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot() -> str:
    """Where pids mean the same: the boot, and the process namespace (containers share a boot)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
