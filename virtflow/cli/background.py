"""Leave an operation to a process of its own, and look at it from here through the database."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.cli.progress import Progress, Step, progress_for
from virtflow.errors import Conflict, HostStorageError, OperationFailed, RevertIncomplete, WaitTimeout

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.operations import Operation, OperationRepository

POLL = 0.3
"""Seconds between two looks at the database, of an operation that has taken a while already."""
_SOON = 0.02
"""Seconds to the first look after the one at the beginning: many an operation takes no longer than a tenth."""
_GRACE = {"ACCEPTED": 15.0}
"""Seconds for which an operation in this state may have nobody: whoever was started to run it is still starting."""
_SHORT_GRACE = 1.0
"""For every other state: two looks at least, because an operation can end between being read and being judged."""


def resume_in_background(context: Context, operation_id: str, *, group: bool = False) -> Path:
    """Start ``virtflow operation resume`` in a session of its own; returns the file its output goes to.

    With ``group`` the id is that of a group.
    """
    directory = context.config.state_dir / "log"
    log = directory / f"operation-{operation_id}.log"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(log, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise HostStorageError(action="write", path=log, reason=error.strerror) from error
    # -P: the directory we happen to be in is no place to import modules from.
    program = [sys.executable, "-P", "-m", "virtflow.cli.main"]
    os.posix_spawn(
        sys.executable,
        [*program, *context.global_arguments(), "operation", "resume", *(["--group"] if group else []), operation_id],
        os.environ,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return log


def watch(context: Context, operation_id: str, timeout: float | None) -> Operation:
    """Follow an operation until it is finished, and return it.

    Raises WaitTimeout after ``timeout`` seconds, Conflict when nobody runs it, and KeyboardInterrupt on Ctrl-C: in all
    three the operation is left alone.
    """
    from virtflow.persistence.operations import OperationRepository

    operations = OperationRepository(context.database, lease=context.config.jobboard.lease)
    operation = operations.get(operation_id)
    start = last_seen = time.monotonic()
    title = f"operation {operation.number}: {operation.kind} {operation.target}"
    with progress_for(context.stderr, title) as progress:
        follow = _follower(progress)
        while True:
            follow(operation)
            now = time.monotonic()
            waited = now - start
            if operation.state == "FINISHED":
                return operation
            if context.has_workers or _runs(operations, operation):
                last_seen = now
            if now - last_seen > _GRACE.get(operation.state, _SHORT_GRACE):
                reason = f"nobody runs it (`virtflow operation resume {operation.number}` does)"
                raise Conflict(action="watch", kind="operation", name=operation.number, reason=reason)
            if timeout is not None and waited >= timeout:
                raise WaitTimeout(operation=operation.number, state=operation.state, seconds=f"{timeout:g}")
            pause = min(POLL, max(_SOON, waited / 4))
            try:
                time.sleep(pause if timeout is None else max(0.0, min(pause, timeout - waited)))
            except KeyboardInterrupt:
                progress.say(f"It goes on. Look again with: virtflow operation watch {operation.number}")
                raise
            operation = operations.get(operation_id)


def _runs(operations: OperationRepository, operation: Operation) -> bool:
    """Whether somebody is at it: a member of a group waits for its turn while others are run."""
    if operation.running or operation.group is None:
        return operation.running
    return any(member.running for member in operations.list(group=operation.group, limit=1000))


def _follower(progress: Progress) -> Callable[[Operation], None]:
    shown: dict[tuple[str, str], Step] = {}

    def follow(operation: Operation) -> None:
        for task in operation.tasks:
            step = Step(task.flow, task.name, task.state, task.attempts, task.progress, task.error)
            if shown.get((task.flow, task.name)) != step:
                shown[task.flow, task.name] = step
                progress(step)

    return follow


def raise_for_outcome(operation: Operation) -> None:
    """OperationFailed or RevertIncomplete when a finished operation did not do what was asked."""
    fields = {"kind": operation.kind, "target": operation.target, "cause": operation.error or operation.outcome}
    if operation.outcome in ("REVERTED_WITH_DEBT", "FAILED_FORWARD"):
        raise RevertIncomplete(**fields, debts=operation.debts)
    if operation.outcome in ("REVERTED", "CANCELLED"):
        raise OperationFailed(**fields)
