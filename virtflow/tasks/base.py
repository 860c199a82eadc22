"""What every task is: an execute and a revert, the intents written before it, and the contract around both.

The engine calls ``run_execute`` and ``run_revert``; they keep the contract (DESIGN.md section 4) so that a task itself
is only its two directions. Tasks hold no state of their own: one compiled flow serves many operations at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from taskflow import task as taskflow_task
from taskflow.types.failure import Failure
from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from virtflow import faults
from virtflow.activity import IDLE, Activity, RunSuspended
from virtflow.errors import ResultNotPlain, StaleEpoch
from virtflow.persistence.models.base import encode
from virtflow.redaction import scrub

LOG = logging.getLogger(__name__)

_activity: ContextVar[Activity] = ContextVar("virtflow_activity", default=IDLE)


@dataclass(frozen=True)
class Intent:
    """Something that a task is about to make: a ledger row, durable before ``execute`` starts.

    ``kind`` is what it is (directory, file, tap, domain ...), ``identity`` finds it again on its host.
    """

    kind: str
    identity: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Task(taskflow_task.Task):
    """Base of all tasks.

    ``timeout`` holds for each direction: seconds (0: none), or the name of a configured one (``[tasks]
    <name>_timeout``). ``intents`` gets the arguments of ``execute`` by name and tells what is about to be made.
    """

    timeout: float | str = "default"
    cancellable: bool = True
    """Whether a cancel keeps it from starting, and ends it. One that is not looks at ``Activity.cancel_requested``
    itself, or stands where nothing is taken back any more."""

    def __init__(self, name: str | None = None, **options: Any) -> None:
        """A task is known by its class unless the flow names it; ``options`` are TaskFlow's own."""
        super().__init__(name=name or type(self).__name__, **options)

    @property
    def activity(self) -> Activity:
        """Progress, cancel and deadline of the run in this thread."""
        return _activity.get()

    def intents(self, *_args: Any, **_arguments: Any) -> Iterable[Intent]:
        return ()

    def verify(self, result: Any, **_arguments: Any) -> bool:  # noqa: ARG002 - for those who override it
        """Whether a fork may keep an earlier result: what it stands for is there, on the live host, for this operation.

        Asked only with equal arguments. A task that announces nothing has made nothing; one that does, makes it again.
        """
        return type(self).intents is Task.intents


@dataclass(frozen=True)
class Debt:
    """What a revert that would not succeed leaves behind: its last error."""

    error: str


@dataclass(frozen=True)
class RevertPolicy:
    """How often a failing revert is tried before it becomes debt; pauses in seconds, doubling up to ``longest``."""

    attempts: int = 3
    pause: float = 0.2
    longest: float = 5.0


def run_execute(task: taskflow_task.Task, arguments: Mapping[str, Any], activity: Activity) -> Any:
    """Execute a task: its result as plain data, or a Failure."""
    token = _activity.set(activity)
    try:
        activity.check()
        again = faults.active is not None and faults.active.hit(task.name, "before")
        result = _plain(task, task.execute(**arguments))
        if faults.active is not None:
            again |= faults.active.hit(task.name, "after")
        if again:
            result = _plain(task, task.execute(**arguments))
    except Exception:  # noqa: BLE001 - a failing task is a value to the engine
        return Failure()
    finally:
        _activity.reset(token)
    return result


def run_revert(
    task: taskflow_task.Task,
    arguments: Mapping[str, Any],
    result: Any,
    failures: Mapping[str, Failure],
    activity: Activity,
    policy: RevertPolicy,
) -> Debt | None:
    """Revert a task, several times if need be. Never raises: what stays is a Debt, and the unwinding goes on.

    A revert that knows that trying again is no use returns a Debt itself. StaleEpoch is the exception: who does not own
    the operation any more must not touch anything.
    """
    token = _activity.set(activity)
    retrying = Retrying(
        stop=stop_after_attempt(policy.attempts),
        wait=wait_exponential(multiplier=policy.pause, max=policy.longest),
        retry=retry_if_not_exception_type((StaleEpoch, RunSuspended)),
        reraise=True,
    )
    try:
        debt: Debt | None = retrying(_revert_once, task, arguments, result, failures)
    except StaleEpoch:
        raise
    except Exception as error:
        LOG.warning("cannot revert %s: %s", task.name, scrub(str(error)), exc_info=LOG.isEnabledFor(logging.DEBUG))
        return Debt(error=scrub(f"{type(error).__name__}: {error}"))
    finally:
        _activity.reset(token)
    return debt


def _revert_once(
    task: taskflow_task.Task, arguments: Mapping[str, Any], result: Any, failures: Mapping[str, Failure]
) -> Debt | None:
    point = f"{task.name}.revert"
    again = faults.active is not None and faults.active.hit(point, "before")
    left = task.revert(result=result, flow_failures=failures, **arguments)
    if faults.active is not None:
        again |= faults.active.hit(point, "after")
    if again:
        left = task.revert(result=result, flow_failures=failures, **arguments)
    return left if isinstance(left, Debt) else None


def _plain(task: taskflow_task.Task, result: Any) -> Any:
    """The result as it will come back from the database, or ResultNotPlain."""
    if result is None or isinstance(result, str | bool):
        return result
    try:
        return json.loads(encode(result))
    except (TypeError, ValueError) as error:
        raise ResultNotPlain(step=task.name, reason=str(error)) from error
