"""``virtflow replay run|fork|undo-preview``: from a recording to the live host.

What is asked at a stop is answered from the terminal or from standard input; at its end the operation is left HELD.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from virtflow.cli.background import raise_for_outcome
from virtflow.cli.command import Lister, ShowOne
from virtflow.cli.operation import add_reference, find
from virtflow.cli.operation_columns import summary
from virtflow.cli.progress import printable
from virtflow.cli.requesting import Output
from virtflow.cli.usage import UsageError, key_value

if TYPE_CHECKING:
    from virtflow.engine.stepping import Gate
    from virtflow.persistence.operations import Operation
    from virtflow.requests import Request


def add_stepping(parser: argparse.ArgumentParser) -> None:
    """How to go through the tasks."""
    parser.add_argument("--step", action="store_true", help="ask before every task")
    parser.add_argument(
        "--break", dest="breakpoints", action="append", default=[], metavar="TASK", help="ask before it"
    )
    parser.add_argument(
        "--on-failure",
        choices=("ask", "keep", "revert"),
        help="of a task: ask (with --step or --break), keep everything as it is (HELD), or revert (otherwise)",
    )


def gate_of(parsed_args: argparse.Namespace, out: TextIO) -> Gate | None:
    """Who decides, as the arguments say; None: nobody is asked."""
    from virtflow.cli.replay_prompt import Prompt
    from virtflow.engine.stepping import KeepOnFailure

    asks = parsed_args.step or parsed_args.breakpoints or parsed_args.on_failure == "ask"
    if asks:
        return Prompt(out, parsed_args.step, parsed_args.breakpoints, parsed_args.on_failure or "ask")
    return KeepOnFailure() if parsed_args.on_failure == "keep" else None


class Run(ShowOne):
    """Go on with an operation for real, task by task: with breakpoints, and without reverting at once what fails.

    For one that was accepted, was left, or whose process died. What is left on the way is HELD, and can be gone on
    with, resumed or cancelled.
    """

    examples = (
        "virtflow replay run 12 --step",
        "virtflow replay run 12 --break StartDomain",
        "virtflow replay run 12 --on-failure keep",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        add_stepping(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.engine.stepping import step

        operation = find(self.context, parsed_args)
        from virtflow.cli.replay_prompt import Prompt

        gate = gate_of(parsed_args, self.app.stderr)
        with self.context.runner() as runner:
            ended = step(runner, operation.id, gate or Prompt(self.app.stderr, False, (), "revert"))
        return _told(ended)


class Fork(ShowOne):
    """Run a finished operation's request again as a new operation, from a task on.

    A result from before that task is kept where the new operation asks the same, once it was re-checked on the live
    host; each task tells whether it was kept, or made again and why.
    """

    examples = (
        "virtflow replay fork 12 --from StartDomain",
        "virtflow replay fork 12 --from SelectHost --host kvm-02",
        "virtflow replay fork 12 --from ValidateRequest --set memory_mib=256 --set name=web2 --step",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        parser.add_argument("--from", dest="task", required=True, metavar="TASK", help="do this task and the rest anew")
        parser.add_argument(
            "--set",
            dest="changes",
            action="append",
            default=[],
            type=key_value,
            metavar="FIELD=VALUE",
            help="another value for a field of the request (JSON, or text)",
        )
        parser.add_argument("--host", help="on this host")
        add_stepping(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.engine.forking import fork, value_of
        from virtflow.replay.forkable import kept_results
        from virtflow.replay.player_stage import Code
        from virtflow.replay.reading import read

        source = find(self.context, parsed_args)
        results = kept_results(read(self.context.database, source.id), parsed_args.task, Code.installed())
        changes = {name: value_of(text) for name, text in parsed_args.changes}
        if parsed_args.host is not None:
            changes["host"] = parsed_args.host
        gate = gate_of(parsed_args, self.app.stderr)
        with self.context.runner(self._tell) as runner:
            ended = fork(runner, source, results, changes, parse=parse_request, gate=gate)
        return _told(ended)

    def _tell(self, event: Any) -> None:
        if event.state == "KEPT":
            self.app.stderr.write(f"kept        live  {event.flow}/{event.task}\n")
        elif event.state == "REMADE":
            self.app.stderr.write(f"made again  live  {event.flow}/{event.task}: {printable(event.error or '', 200)}\n")


def parse_request(kind: str, plain: Mapping[str, Any]) -> Request:
    """A request of that kind from plain data. InvalidRequest; UsageError for a kind that nobody requests."""
    from virtflow.requests import REQUESTS

    if kind not in REQUESTS:
        raise UsageError(reason=f"a {kind} is not made by a request, and cannot be forked")
    cls = REQUESTS[kind]
    # A secret that was not set is stored as None, whatever the type of its field.
    return cls.parse(
        {name: value for name, value in plain.items() if value is not None or name not in cls.secret_fields}
    )


def _told(operation: Operation) -> tuple[tuple[str, ...], Iterable[Any]]:
    raise_for_outcome(operation)
    return summary(operation)


class UndoPreview(Lister):
    """What an undo of an operation would take back, and in which order. Changes nothing.

    What tasks have made is recorded; the order and what their reverts do is derived from today's code.
    """

    examples = ("virtflow replay undo-preview 12", "virtflow replay undo-preview --last -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_reference(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.replay.forkable import undo_preview
        from virtflow.replay.player_stage import Code
        from virtflow.replay.reading import read

        operation = find(self.context, parsed_args)
        if operation.outcome != "SUCCESS":
            self.app.stderr.write(
                f"virtflow: it could not be undone now: it is {operation.outcome or operation.state}\n"
            )
        steps = undo_preview(read(self.context.database, operation.id), Code.installed())
        return ("flow", "task", "made", "revert"), [[s.flow, s.task, "\n".join(s.made), s.does] for s in steps]
