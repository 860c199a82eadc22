"""Recordings for tests, made cheaply: flows of tasks that do nothing, run by the real Runner on an SQLite database.

    with RecordingStudio(tmp_path) as studio:
        recording = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", fails=1)))

``Step`` is a task that does nothing, provides a value, waits for values, fails as often as told, or whose revert does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from taskflow.flow import Flow

from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.errors import VirtflowError
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence.database import Database
from virtflow.persistence.secrets import SecretStore, load_or_create_key
from virtflow.replay.reading import read
from virtflow.replay.recording import Recording
from virtflow.requests.models import Request
from virtflow.tasks.base import Intent, Task


class ToyRequest(Request):
    """A request for nothing. ``note`` is stored as it is, ``hidden`` as a secret."""

    kind: ClassVar[str] = "toy"
    secret_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    name: str = "thing"
    note: str = ""
    hidden: str | None = None

    def target(self) -> str:
        return f"toy:{self.name}"

    def secrets(self) -> dict[str, bytes]:
        return {"hidden": self.hidden.encode()} if self.hidden else {}


class Failures:
    """The service ``failures``: counts, across all runs, how often each step has yet to fail."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def due(self, step: str, times: int) -> bool:
        left = self._left.setdefault(step, times)
        self._left[step] = max(0, left - 1)
        return left > 0


class Step(Task):
    """Does nothing. ``result`` may be a function of the arguments that it ``needs``.

    ``fails`` and ``revert_fails``: how many of its executes and reverts raise (-1: all). ``makes``: (kind, identity)
    of what it announces in the ledger. ``does`` is called with no arguments in execute, before it may fail.
    """

    def __init__(
        self,
        name: str,
        *,
        needs: Iterable[str] = (),
        result: Any = None,
        fails: int = 0,
        message: str = "on purpose",
        revert_fails: int = 0,
        makes: Iterable[tuple[str, str]] = (),
        does: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, requires=["failures", *needs], **options)
        self._result = result
        self._fails = fails
        self._message = message
        self._revert_fails = revert_fails
        self._makes = tuple(makes)
        self._does = does

    def intents(self, **_arguments: Any) -> Iterable[Intent]:
        return tuple(Intent(kind, identity) for kind, identity in self._makes)

    def execute(self, failures: Failures, **arguments: Any) -> Any:
        if self._does is not None:
            self._does()
        if self._fails < 0 or failures.due(self.name, self._fails):
            raise RuntimeError(self._message)
        return self._result(**arguments) if callable(self._result) else self._result

    def revert(self, failures: Failures, **_arguments: Any) -> None:
        if self._revert_fails < 0 or failures.due(f"{self.name}.revert", self._revert_fails):
            raise RuntimeError(f"cannot take back {self.name}")


class RecordingStudio:
    """A state directory with a database of its own. Every runner it makes shares them."""

    def __init__(self, directory: Path, *, settings: Mapping[str, Any] | None = None) -> None:
        options = {"state_dir": str(directory), "engine.revert_backoff": "0", **(settings or {})}
        self.config = load(overrides=options, env={})
        self.failures = Failures()
        self._key = directory / "key"
        self._stack = ExitStack()
        self.database = Database(self.config.database.url)
        self._stack.callback(self.database.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def runner(self, build: Callable[[], Flow], *others: FlowKind, version: int = 1, **services: Any) -> Runner:
        """A runner whose operation ``toy`` has this graph; ``others`` are its segments. Closed with the studio."""
        registry = Registry((FlowKind("toy", version, lambda _shape: build()), *others))
        store = SecretStore(self.database, load_or_create_key(self._key))
        offered = {"failures": self.failures, "secrets": store, **services}
        return self._stack.enter_context(Runner(self.config, services=offered, registry=registry))

    def record(self, build: Callable[[], Flow], *others: FlowKind, **fields: Any) -> Recording:
        """Run the graph once, however it ends; ``fields`` are those of ToyRequest."""
        runner = self.runner(build, *others)
        with suppress(VirtflowError):
            runner.run(ToyRequest(**fields))
        return self.read()

    def read(self, reference: str = "--last") -> Recording:
        """What is recorded of an operation, the latest by default."""
        return read(self.database, reference)
