"""The task reference, from the tasks' docstrings and what TaskFlow knows of their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from scripts.documentation.pages import NOTICE
from virtflow.engine.taskflow_engine import Template
from virtflow.flows.registry import default_registry
from virtflow.tasks.base import Task

_INTRODUCTION = """\
# Tasks

What each task of a shipped flow makes, how it reverts (or why it cannot), and what makes a second execution safe. The
rules that all of them follow are in [how one operation is made](../explanation/how-an-operation-is-made.md).

*Announces* means that the task writes what it is about to make to the ledger before its body starts. A timeout holds
for each direction; those with a name are options of the group `[tasks]`."""


def tasks_page() -> str:
    """The whole page, a section per file of virtflow/tasks."""
    parts = [NOTICE.format(script="reference-pages") + _INTRODUCTION]
    module = None
    for cls, uses in sorted(_tasks().items(), key=lambda item: (item[0].__module__, _line(item[0]))):
        if cls.__module__ != module:
            module = cls.__module__
            parts += [f"## `{module.replace('.', '/')}.py`", inspect.getdoc(inspect.getmodule(cls)) or ""]
        parts += _section(cls, uses)
    return "\n\n".join(parts).replace("``", "`") + "\n"


def _tasks() -> dict[type[Task], list[tuple[str, Any]]]:
    """Every class of task, with the flows it is in."""
    registry = default_registry()
    found: dict[type[Task], list[tuple[str, Any]]] = {}
    for name in registry.names():
        kind = registry.newest(name)
        seen: set[str] = set()
        for atom in (atom for shape in kind.shapes for atom in Template(kind.build(shape)).atoms):
            if isinstance(atom, Task) and atom.name not in seen:
                seen.add(atom.name)
                found.setdefault(type(atom), []).append((name, atom))
    return found


def _section(cls: type[Task], uses: list[tuple[str, Any]]) -> Iterator[str]:
    yield f"### {cls.__name__}"
    yield inspect.getdoc(cls) or ""
    names = [f"`{flow}`" + (f" as `{atom.name}`" if atom.name != cls.__name__ else "") for flow, atom in uses]
    facts = [f"In {', '.join(names)}"]
    provided = sorted({name for _flow, atom in uses for name in atom.save_as}) if cls.default_provides else []
    if provided:
        facts.append(f"provides {', '.join(f'`{name}`' for name in provided)}")
    if cls.intents is not Task.intents:
        facts.append("announces")
    facts.append(f"timeout {_timeout(cls)}")
    yield "; ".join(facts) + "."


def _timeout(cls: type[Task]) -> str:
    timeout: Any = cls.timeout
    if isinstance(timeout, str):
        return f"`{timeout}_timeout`"
    return f"{timeout:g} s" if timeout else "that of each of its tasks"


def _line(cls: type[Task]) -> int:
    return inspect.getsourcelines(cls)[1]
