"""``virtflow replay show|events|timeline|graph|task|why|left``: looking at what an operation did."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Command, Lister
from virtflow.cli.replay_screen import Screen, print_branch
from virtflow.cli.replay_source import add_recording, find_recording, is_live
from virtflow.cli.usage import UsageError, whole_number

if TYPE_CHECKING:
    from virtflow.replay.recording import Recording

_WIDTH = 100
"""Columns where there is no terminal to ask."""


class Show(Screen):
    """Show an operation: first cause, owners, and every task with both its lanes, do and undo.

    A flow of more than 40 tasks is folded: its uneventful tasks share a line. --all shows each.
    """

    examples = ("virtflow replay show 12", "virtflow replay show --last --all", "virtflow replay show spawn-12.vfrec")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--all", action="store_true", help="a line for every task, however many there are")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.replay.look.tree import summary, tree

        recording = find_recording(self.context, parsed_args)
        return self.show(parsed_args, tree(recording, everything=parsed_args.all), summary(recording))


class Task(Screen):
    """Show one task: what each attempt was given and from where, its result, its error, what it had announced.

    NAME may be FLOW/NAME where several flows have a task of that name. With a log file configured, the lines of that
    time are shown too.
    """

    examples = ("virtflow replay task 12 StartDomain", "virtflow replay task --last FetchBase --attempt 2 -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("task", nargs="?", metavar="NAME", help="the task")
        parser.add_argument("--attempt", type=whole_number(1, 10**6), metavar="N", help="only this attempt")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.replay.look.task_page import task_dict, task_page

        name = last_word(parsed_args, "task")
        if name is None:
            raise UsageError(reason="give the NAME of a task")
        recording = find_recording(self.context, parsed_args)
        logged = self._logged(parsed_args, recording, name)
        page = task_page(recording, name, logged, attempt=parsed_args.attempt)
        return self.show(parsed_args, page, task_dict(recording, name, logged, attempt=parsed_args.attempt))

    def _logged(self, parsed_args: argparse.Namespace, recording: Recording, name: str) -> list[str]:
        """From the log of this host; a file comes from anywhere."""
        from virtflow.replay.look.log_lines import log_lines
        from virtflow.replay.look.task_page import chosen

        flow, atom = recording.find_task(name)
        found = chosen(flow, atom.name, parsed_args.attempt)
        if not found or not is_live(parsed_args, recording):
            return []
        until = max(each.finished_at or each.started_at for each in found)
        path = self.context.config.log_file
        log = None if path is None else Path(path)
        return log_lines(log, found[0].started_at, until, recording.operation.id)


class Why(Screen):
    """Say what blocks an operation, or one of its tasks, or what blocked it; each reason with how it is known."""

    examples = ("virtflow replay why 12", "virtflow replay why --last StartDomain")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("task", nargs="?", metavar="TASK", help="a task of it")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.replay.look.lines import line
        from virtflow.replay.look.why import nobody_asked, why

        task = last_word(parsed_args, "task")
        recording = find_recording(self.context, parsed_args)
        reasons = why(recording, task, self._owner if is_live(parsed_args, recording) else nobody_asked)
        operation = recording.operation
        title = f"why {task} of operation {operation.number}" if task else f"why operation {operation.number}"
        screen = line((title, "bold"))
        for reason in reasons:
            screen.add(reason.text, (f"  ({reason.label})", "dim"))
        plain = [{"text": reason.text, "label": reason.label} for reason in reasons]
        return self.show(parsed_args, screen, {"operation": operation.number, "task": task, "reasons": plain})

    def _owner(self, subject: str) -> str | None:
        from virtflow.replay.live import owner_now

        return owner_now(self.context.database, subject)


class Left(Lister):
    """List what an operation had announced and still exists, asked live: files, domains, taps, rows. Changes nothing.

    RECORDED is the ledger's word, LIVE what this host and the database say now. --all lists what is gone as well.
    """

    examples = ("virtflow replay left 12", "virtflow replay left --last --all -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("--all", action="store_true", help="also what is gone")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], Iterable[Any]]:
        from virtflow.replay.look.left import checked, recorded_only

        recording = find_recording(self.context, parsed_args)
        if is_live(parsed_args, recording):
            things = checked(recording, self.context.config, self.context.database)
        else:
            things = recorded_only(recording)
        columns = ("kind", "identity", "host", "task", "recorded", "live", "remark")
        shown = [thing.to_dict() for thing in things if parsed_args.all or thing.matters]
        return columns, [["" if each[name] is None else each[name] for name in columns] for each in shown]


class Timeline(Command):
    """Draw when each task ran, and when it was taken back, as bars in the terminal. Pauses are cut short."""

    examples = ("virtflow replay timeline 12", "virtflow replay timeline --last --width 140")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("--all", action="store_true", help="a line for every task, however many there are")
        parser.add_argument("--width", type=whole_number(40, 1000), metavar="N", help="columns (the terminal's)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.replay.look.gantt import gantt

        recording = find_recording(self.context, parsed_args)
        asked = shutil.get_terminal_size((_WIDTH, 24)).columns if self.app.stdout.isatty() else _WIDTH
        chart = gantt(recording, parsed_args.width or asked, everything=parsed_args.all)
        print_branch(chart, self.app.stdout)


class Graph(Command):
    """Draw the flows as they were, coloured by state: for Graphviz (dot), Mermaid, or as an SVG picture."""

    examples = (
        "virtflow replay graph 12",
        "virtflow replay graph --last --as svg -o operation.svg",
        "virtflow replay graph spawn-12.vfrec --as dot --at 40",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("--as", dest="form", choices=("mermaid", "dot", "svg"), default="mermaid", help="the form")
        parser.add_argument("--at", type=whole_number(0, 10**9), metavar="N", help="as it was after N events")
        parser.add_argument("-o", "--output", metavar="FILE", help="write it to a file")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.replay.look import drawing

        draw = {"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[parsed_args.form]
        text = draw(find_recording(self.context, parsed_args), parsed_args.at)
        if parsed_args.output is None:
            self.app.stdout.write(text)
            return
        from virtflow.files.durable import storage_errors

        with storage_errors("write", Path(parsed_args.output)):
            Path(parsed_args.output).write_text(text, encoding="utf-8")


def last_word(parsed_args: argparse.Namespace, name: str) -> str | None:
    """With --last or --file the one free argument is not an ID but the argument after it."""
    named = parsed_args.last or parsed_args.file is not None
    if named and parsed_args.recording is not None and getattr(parsed_args, name) is None:
        setattr(parsed_args, name, parsed_args.recording)
        parsed_args.recording = None
    word: str | None = getattr(parsed_args, name)
    return word
