"""How operations are shown. The keys of the JSON form are a documented contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from virtflow.cli.command import row
from virtflow.cli.progress import duration, printable

if TYPE_CHECKING:
    from virtflow.persistence.operations import Operation

LISTED = (
    *("number", "id", "group", "kind", "target", "state", "outcome"),
    *("started_at", "finished_at", "debts", "error"),
)
SHOWN = (
    *("id", "number", "kind", "target", "group", "project", "state", "outcome"),
    *("created_at", "started_at", "finished_at", "error", "debts"),
)


_REFUSED = 10
"""Hosts of one decision that a table tells of."""


class Tasks(FormattableColumn[list[dict[str, Any]]]):
    """One line per task in a table."""

    def human_readable(self) -> str:
        return "\n".join(self._line(task) for task in self._value)

    @staticmethod
    def _line(task: dict[str, Any]) -> str:
        spent = "" if task["duration_ms"] is None else duration(task["duration_ms"] / 1000)
        attempts = f"  attempt {task['attempts']}" if (task["attempts"] or 0) > 1 else ""
        error = f"  {printable(task['error'], 100)}" if task["error"] else ""
        return f"{task['name']:<22} {task['state']:<10} {spent:>9}{attempts}{error}".rstrip()


class Decisions(FormattableColumn[list[dict[str, Any]]]):
    """One line per attempt in a table, and one per host that was refused."""

    def human_readable(self) -> str:
        return "\n".join(line for decision in self._value for line in self._lines(decision))

    @staticmethod
    def _lines(decision: dict[str, Any]) -> Iterator[str]:
        after = f", then {', '.join(decision['alternates'])}" if decision["alternates"] else ""
        yield f"attempt {decision['attempt']}: {decision['chosen'] or 'no host'}{after}"
        for number, (host, (_filter, reason)) in enumerate(decision["refused"].items()):
            if number == _REFUSED:
                yield f"  and {len(decision['refused']) - _REFUSED} more were refused"
                return
            yield f"  not {host}: {printable(reason, 140)}"


class Segments(FormattableColumn[list[dict[str, Any]]]):
    """One line in a table per segment that a host was asked for."""

    def human_readable(self) -> str:
        return "\n".join(self._line(each) for each in self._value)

    @staticmethod
    def _line(each: dict[str, Any]) -> str:
        told = (each["waits_for"] and f"waits: {each['waits_for']}") or each["error"] or ""
        return f"{each['verb']:<5} {each['kind']} on {each['host']}: {each['state']}  {printable(told, 140)}".rstrip()


def listed(operation: Operation) -> list[Any]:
    """A row of ``operation list``."""
    return row(operation.to_dict(), LISTED)


def summary(operation: Operation) -> tuple[tuple[str, ...], list[Any]]:
    """Column names and values without the tasks: what a command prints that ran the operation."""
    return SHOWN, row(operation.to_dict(), SHOWN)


def full(
    operation: Operation, decisions: list[dict[str, Any]], segments: list[dict[str, Any]]
) -> tuple[tuple[str, ...], list[Any]]:
    """Column names and values with the choices of hosts, what hosts were asked for, and the tasks."""
    plain = operation.to_dict()
    told = [Decisions(decisions), Segments(segments), Tasks(plain["tasks"])]
    return (*SHOWN, "decisions", "segments", "tasks"), [*row(plain, SHOWN), *told]
