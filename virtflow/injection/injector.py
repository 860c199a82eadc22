"""Inject into a disk, so that nothing but the disk is changed on this host, and a disk that was left half-way is known.

While it is worked on, a directory ``<disk>.injecting.<operation>`` stands beside the disk. Who finds one has a disk in
which some files may be and some not: it has to be made anew before anything is injected again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, InjectionError
from virtflow.files.durable import sync
from virtflow.injection import leftovers
from virtflow.injection.plan import METHODS, GuestItems, InjectionPlan, InjectionResult
from virtflow.processes import run

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Injector:
    """``method`` is one of METHODS or ``auto``: the first of them that can."""

    method: str = "auto"
    guestfs_backend: str = "direct"
    guestfs_emulated: bool = False

    def interrupted(self, disk: Path, operation: str) -> bool:
        """Whether an injection of this operation into the disk was begun and did not come to its end."""
        return leftovers.marker(disk, operation).exists()

    def discard(self, disk: Path, operation: str) -> None:
        """Remove what an injection that was killed left on this host; nothing there is fine. Not the disk."""
        path = leftovers.marker(disk, operation)
        if path.exists():
            leftovers.remove(leftovers.Leftover(path, operation))

    def inject(
        self,
        disk: Path,
        disk_format: str,
        partition: int,
        items: GuestItems,
        operation: str,
        *,
        mandatory: frozenset[str] = frozenset(("files",)),
        activity: Activity = IDLE,
    ) -> InjectionResult:
        """Write the items into the disk, which no guest uses. Raises InjectionError when a mandatory one fails.

        The disk must be fresh, or injected to the end before. ``partition``: -1 finds the root file system, 0 is the
        whole disk. Others that fail are in the result, and logged.
        """
        if not items.wanted():
            return InjectionResult()
        plan = InjectionPlan(
            disk=disk.absolute(),
            disk_format=disk_format,
            partition=partition,
            methods=METHODS if self.method == "auto" else (self.method,),
            items=items,
            mandatory=mandatory,
            guestfs_backend=self.guestfs_backend,
            guestfs_emulated=self.guestfs_emulated,
        )
        with _marked(plan.disk, operation) as directory:
            answer = _run_worker(plan, directory, activity)
            if "error" in answer:
                raise InjectionError(disk=disk, reason=answer["error"])
            sync(plan.disk)
        for name, why in answer["failed"].items():
            LOG.warning("cannot inject %s into %s: %s", name, disk, why)
        return InjectionResult(tuple(answer["injected"]), answer["failed"], answer["method"])


@contextmanager
def _marked(disk: Path, operation: str) -> Iterator[Path]:
    """The marker stands from before the first change until all is on the disk; after a failure it stays."""
    directory = leftovers.marker(disk, operation)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync(directory.parent)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
        directory.rmdir()
        sync(directory.parent)
    except BlockingIOError as error:
        raise InjectionError(disk=disk, reason="another process is doing it") from error
    finally:
        os.close(lock)


def _run_worker(plan: InjectionPlan, directory: Path, activity: Activity) -> dict[str, Any]:
    try:
        out = run(_command(directory), stdin=plan.to_json(), activity=activity)
        answer: dict[str, Any] = json.loads(out)
    except CommandFailed as error:
        # Its own message would be a traceback, which may quote what it worked on.
        raise InjectionError(disk=plan.disk, reason=f"its process ended with status {error.status}") from error
    except ValueError as error:
        raise InjectionError(disk=plan.disk, reason="its process gave no answer") from error
    return answer


def _command(directory: Path) -> list[str]:
    # Namespaces of mounts and processes: what is in them ends with the worker, and the worker with this process.
    unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    return [*unshare, "--", sys.executable, "-P", "-m", "virtflow.injection.worker", str(directory)]
