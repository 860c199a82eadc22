"""``virtflow replay check|diff|stats``: recordings against today's code, against each other, and all of a kind."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, Plain
from virtflow.cli.replay_source import as_reference, recording_of
from virtflow.cli.requesting import Output
from virtflow.cli.usage import UsageError, whole_number

if TYPE_CHECKING:
    from virtflow.replay.checking import Checked
    from virtflow.replay.recording import Recording

DIVERGED = 4
"""Of the exit codes: it cannot be done as it stands, and nothing was changed."""


class Check(Lister):
    """Replay recordings against the installed code: the gate before an upgrade with operations in flight.

    Without arguments those operations are checked that are not finished. Executes nothing and changes nothing. Exit
    code 0 when today's code decides as recorded, 4 otherwise; then each first divergence is named.
    """

    examples = (
        "virtflow replay check",
        "virtflow replay check --kind spawn --state FINISHED --limit 500",
        "virtflow replay check recordings/ 12",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("recordings", nargs="*", metavar="ID|FILE|DIR", help="operations, exported files, or both")
        parser.add_argument("--state", type=str.upper, help="operations in this state, or ANY")
        parser.add_argument("--kind", help="operations of this kind (spawn, delete ...)")
        parser.add_argument("--host", help="operations that did something on this host")
        parser.add_argument(
            "--limit", type=whole_number(1, 100000), default=1000, help="at most so many (default 1000)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.checking import check
        from virtflow.replay.player_stage import Code

        code = Code.installed()
        self._checked = [check(recording, code, source) for source, recording in self._recordings(parsed_args)]
        return _CHECKED, [_row(each) for each in self._checked]

    def run(self, parsed_args: argparse.Namespace) -> int:
        """cliff's, with the exit code that CI wants."""
        super().run(parsed_args)
        diverged = [each for each in self._checked if each.first is not None]
        if not diverged:
            if not self._checked:
                self.context.stderr.write("there is nothing to check\n")
            return 0
        first = diverged[0]
        self.app.complain(f"{len(diverged)} of {len(self._checked)} diverge; {first.source}: {first.first}")
        return DIVERGED

    def _recordings(self, parsed_args: argparse.Namespace) -> Iterator[tuple[str, Recording]]:
        for reference in parsed_args.recordings:
            path = Path(reference)
            names = _files(path) if path.is_dir() else [reference]
            for name in names:
                yield name, recording_of(self.context, as_reference(name))
        filters = (parsed_args.state, parsed_args.kind, parsed_args.host)
        if not parsed_args.recordings or any(filters):
            yield from self._stored(*filters, parsed_args.limit)

    def _stored(
        self, state: str | None, kind: str | None, host: str | None, limit: int
    ) -> Iterator[tuple[str, Recording]]:
        from virtflow.persistence.operations import FINISHED, OperationRepository
        from virtflow.replay.reading import read

        wanted = None if state in (None, "ANY") else state
        for operation in OperationRepository(self.context.database).list(state=wanted, kind=kind, limit=limit):
            if state is None and operation.state == FINISHED:
                continue
            recording = read(self.context.database, operation.id)
            if host is None or any(event.host == host for event in recording.events):
                yield f"operation {operation.number}", recording


_CHECKED = ("recording", "kind", "version", "outcome", "events", "divergences", "first")


def _files(directory: Path) -> list[str]:
    found = sorted(str(path) for path in directory.rglob("*") if path.is_file())
    if not found:
        raise UsageError(reason=f"no recordings in {directory}")
    return found


def _row(checked: Checked) -> list[Any]:
    operation = checked.recording.operation
    first = "" if checked.first is None else str(checked.first)
    outcome = operation.outcome or operation.state
    return [checked.source, operation.kind, operation.version, outcome, checked.events, len(checked.divergences), first]


class Diff(Lister):
    """Compare two operations: where they part, inputs, results, durations. Names of things are not compared.

    Everything shown is recorded, except where they part, which is derived.
    """

    examples = (
        "virtflow replay diff 12 14",
        "virtflow replay diff 14 --last-good",
        "virtflow replay diff --last --last-good",
        "virtflow replay diff good.vfrec bad.vfrec -f json",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("first", nargs="?", metavar="ID|FILE", help="an operation or an exported file")
        parser.add_argument("second", nargs="?", metavar="ID|FILE", help="what it is compared with")
        parser.add_argument("--last", action="store_true", help="the latest operation, as the second of the two")
        parser.add_argument("--last-good", action="store_true", help="compare with the last success of the same kind")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.diffing import difference, last_good

        given = [as_reference(each) for each in (parsed_args.first, parsed_args.second) if each]
        given += ["--last"] * parsed_args.last
        if len(given) + parsed_args.last_good != 2:
            raise UsageError(reason="give two operations, or one and --last-good; --last is one")
        recordings = [recording_of(self.context, each) for each in given]
        if parsed_args.last_good:
            recordings.insert(0, last_good(self.context.database, recordings[0]))
        first, second = recordings
        names = tuple(f"{_title(each)}" for each in (first, second))
        if names[0] == names[1]:
            names = (f"{names[0]} (first)", f"{names[1]} (second)")
        rows = [[each.what, each.task, each.name, each.first, each.second] for each in difference(first, second)]
        return ("what", "task", "name", *names), [[*row[:3], *map(_cell, row[3:])] for row in rows]


def _title(recording: Recording) -> str:
    operation = recording.operation
    return f"operation {operation.number} ({operation.outcome or operation.state})"


def _cell(value: Any) -> Any:
    return Plain(value) if value is None or isinstance(value, dict | list) else value


class Stats(Lister):
    """Per task of a kind of operation: how often it ran, how often it failed, and how long it took (50%, 95%).

    Worked out (derived) from the recorded events of all operations of the kind.
    """

    examples = ("virtflow replay stats spawn", "virtflow replay stats delete -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("kind", metavar="KIND", help="spawn, delete ...")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.statistics import statistics

        columns = ("flow", "task", "count", "failures", "reverts", "p50_ms", "p95_ms")
        found = statistics(self.context.database, parsed_args.kind)
        return columns, [[_cell(getattr(each, name)) for name in columns] for each in found]
