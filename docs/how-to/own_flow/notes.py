"""A flow of your own: leave a note on the host, as an operation that can be resumed, undone and swept.

1. ComposeNote   what it says
2. WriteNote     the file, with the operation's id in it
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow import Runner
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.requests import Request
from virtflow.tasks.base import Intent, Task
from virtflow.testing.scenario import Scenario
from virtflow.testing.throwaway_host import ThrowawayHost


class NoteRequest(Request):
    """What the user asks for. A wrong field raises InvalidRequest, and nothing else."""

    kind: ClassVar[str] = "note"

    name: str
    text: str

    def target(self) -> str:
        """One operation per target at a time."""
        return f"note:{self.name}"


class ComposeNote(Task):
    """Provide the content of the note. Makes nothing; nothing to revert."""

    default_provides = "content"

    def execute(self, request: Mapping[str, Any], operation: str) -> str:
        return f"{operation}\n{request['text']}\n"

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


class WriteNote(Task):
    """Write the note.

    Reverts: removes it, if this operation wrote it. Written again, it replaces the first by a rename.
    """

    def intents(self, request: Mapping[str, Any], directories: Any, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("file", str(_path(request, directories))),)

    def execute(self, request: Mapping[str, Any], content: str, operation: str, directories: Any) -> None:
        path = _path(request, directories)
        staged = path.with_name(f"{path.name}.tmp.{operation}")
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(content)
        os.replace(staged, path)

    def revert(self, request: Mapping[str, Any], operation: str, directories: Any, **_kwargs: Any) -> None:
        path = _path(request, directories)
        path.with_name(f"{path.name}.tmp.{operation}").unlink(missing_ok=True)
        if path.exists() and path.read_text().startswith(operation):
            path.unlink()


def _path(request: Mapping[str, Any], directories: Any) -> Path:
    path: Path = directories.instances_path / f"note-{request['name']}"
    return path


def build(_shape: Hashable) -> Flow:
    """The graph."""
    return linear_flow.Flow("note").add(ComposeNote(), WriteNote())


def registry() -> Registry:
    """The flows that the runner knows."""
    return Registry((FlowKind("note", 1, build),))


def make_runner(host: ThrowawayHost) -> Runner:
    """A runner with these flows, for the sweep."""
    return Runner(host.config(), registry=registry())


SCENARIO = Scenario(
    kind="note",
    request=lambda: NoteRequest(name="shift", text="web1 moves on Friday"),
    make_runner=make_runner,
    registry=registry,
)
