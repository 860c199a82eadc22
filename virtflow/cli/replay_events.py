"""``virtflow replay events``: the journal of an operation, as far as it goes or as it goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister
from virtflow.cli.replay_source import add_recording, find_recording, is_live
from virtflow.cli.usage import UsageError

if TYPE_CHECKING:
    from virtflow.replay.recording import Event, Recording

COLUMNS = ("number", "at", "flow", "task", "event", "attempt", "epoch", "host", "detail")
_INTERVAL = 0.5
"""Seconds between two looks at the database."""


class Events(Lister):
    """List the journal: every transition of every flow and task, in the order in which they happened.

    -f follows an operation that runs, a line per event (with --format json, a JSON object), until it is over.
    """

    examples = (
        "virtflow replay events 12",
        "virtflow replay events --last -f",
        "virtflow replay events 12 --task StartDomain --format json",
    )

    # Elsewhere -f is cliff's --format. Of events that come one by one, everybody expects it to follow.
    on_conflict = "resolve"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("-f", "--follow", action="store_true", help="go on until the operation is over")
        add_recording(parser)
        parser.add_argument("--task", metavar="NAME", help="only those of this task")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        recording = find_recording(self.context, parsed_args)
        if parsed_args.follow:
            if not is_live(parsed_args, recording):
                raise UsageError(reason="nothing happens in an exported recording any more: leave out -f")
            self._follow(recording, parsed_args)
            return COLUMNS, ()
        return COLUMNS, [list(row.values()) for row in rows(recording, parsed_args.task)]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Any, data: Any) -> int:
        """cliff's; what was followed has been printed."""
        return 0 if parsed_args.follow else int(super().produce_output(parsed_args, column_names, data))

    def _follow(self, recording: Recording, parsed_args: argparse.Namespace) -> None:
        from virtflow.persistence.operations import FINISHED, OperationRepository
        from virtflow.replay.reading import read

        repository = OperationRepository(self.context.database)
        printed: set[tuple[str, int]] = set()
        while True:
            over = repository.get(recording.operation.id, tasks=False).state == FINISHED
            for event, row in zip(recording.events, rows(recording), strict=True):
                key = (event.flow, event.sequence)
                if key not in printed and parsed_args.task in (None, event.atom):
                    self._print(row, parsed_args)
                printed.add(key)
            self.app.stdout.flush()
            if over:
                return
            time.sleep(_INTERVAL)
            recording = read(self.context.database, recording.operation.id)

    def _print(self, row: dict[str, Any], parsed_args: argparse.Namespace) -> None:
        from virtflow.replay.look.lines import one_line

        if parsed_args.formatter == "json":
            self.app.stdout.write(json.dumps(row) + "\n")
            return
        task = f"{row['flow']}/{row['task']}" if row["task"] else row["flow"]
        again = f" (attempt {row['attempt']})" if row["attempt"] > 1 else ""
        text = f"{row['at'][11:-1]} {row['host'] or '-'} {task} {row['event']}{again}  {row['detail']}"
        self.app.stdout.write(one_line(text, 400) + "\n")


def rows(recording: Recording, task: str | None = None) -> Iterator[dict[str, Any]]:
    """The events by column. ``number`` counts all that happened to the operation, from 1."""
    from virtflow.persistence.models.base import isoformat

    wanted = None if task is None else recording.find_task(task)
    for number, event in enumerate(recording.events, 1):
        if wanted is not None and (event.atom != wanted[1].name or event.flow != wanted[0].uuid):
            continue
        values = (event.atom or "", event.event, event.attempt, event.epoch, event.host or "", _detail(event))
        flow = recording.by_uuid[event.flow].kind
        yield dict(zip(COLUMNS, (number, isoformat(event.at) or "", flow, *values), strict=True))


def _detail(event: Event) -> str:
    """What an event says beyond its name, in a line."""
    from virtflow.replay.history import error_of
    from virtflow.replay.look.lines import one_line

    data = event.data if isinstance(event.data, dict) else {}
    if text := error_of(event):
        return one_line(text, 200)
    if event.atom is None:
        shown = {key: value for key, value in data.items() if key != "graph" and value}
        return one_line(", ".join(f"{key} {value}" for key, value in shown.items()), 200)
    return one_line(data["result"], 100) if "result" in data else ""
