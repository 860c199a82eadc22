"""Toy operations for tests of the engine: tasks that keep things in a set, in whatever graph a test needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from taskflow.flow import Flow

from virtflow.activity import Activity
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.requests.models import Request
from virtflow.tasks.base import Intent, Task


class ToyRequest(Request):
    """``hidden`` is stored as a secret."""

    kind: ClassVar[str] = "toy"
    secret_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    name: str = "thing"
    hidden: str | None = None

    def target(self) -> str:
        return f"toy:{self.name}"

    def secrets(self) -> dict[str, bytes]:
        return {"hidden": self.hidden.encode()} if self.hidden else {}


class World:
    """What the toy tasks make, and a diary of what they did. Thread-safe."""

    def __init__(self) -> None:
        self.things: set[str] = set()
        self.diary: list[str] = []
        self.lock = threading.Lock()

    def note(self, line: str) -> None:
        with self.lock:
            self.diary.append(line)


class Make(Task):
    """Makes a thing of its own name; provides that name."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name=name, **{"provides": f"made_{name}", **options})

    def intents(self, **_arguments: Any) -> Iterable[Intent]:
        return (Intent("thing", self.name),)

    def execute(self, world: World) -> str:
        world.note(f"make {self.name}")
        world.things.add(self.name)
        return self.name

    def revert(self, world: World, **_arguments: Any) -> None:
        world.note(f"unmake {self.name}")
        world.things.discard(self.name)


class Fail(Task):
    """Fails, with ``message``."""

    def __init__(self, name: str = "fail", message: str = "on purpose", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.message = message

    def execute(self) -> None:
        raise RuntimeError(self.message)


class Call(Task):
    """Calls a function of the test: ``execute(world, activity)``, and ``revert(world)`` if given."""

    def __init__(
        self,
        name: str,
        execute: Callable[[World, Activity], Any] | None = None,
        revert: Callable[[World], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self._execute = execute
        self._revert = revert

    def execute(self, world: World) -> Any:
        return self._execute(world, self.activity) if self._execute is not None else None

    def revert(self, world: World, **_arguments: Any) -> None:
        world.note(f"revert {self.name}")
        if self._revert is not None:
            self._revert(world)


def registry(build: Callable[[], Flow], *others: FlowKind, **options: Any) -> Registry:
    """A registry whose operation ``toy`` has this graph."""
    return Registry((FlowKind("toy", 1, lambda _shape: build(), **options), *others))


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
