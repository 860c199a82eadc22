"""``virtflow job``: what is on the board, and taking it out of workers' hands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from virtflow.cli.command import Command, Lister, ShowOne, row
from virtflow.cli.requesting import Output
from virtflow.cli.usage import whole_number
from virtflow.errors import Conflict, NotFound

if TYPE_CHECKING:
    from virtflow.worker.boards.board import Board, JobRecord

_LISTED = ("name", "topic", "state", "priority", "attempts", "owner", "created_at", "error")
_SHOWN = (
    *("id", "name", "topic", "operation", "segment", "state", "priority", "attempts", "owner"),
    *("created_at", "claimed_at", "expires_at", "not_before", "error"),
)


class ListJobs(Lister):
    """List the jobs of the board, in the order in which they would be claimed; parked ones last."""

    examples = ("virtflow job list", "virtflow job list --topic host.node1 --state PARKED -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--topic", help="only those of this topic (operations, host.NAME)")
        parser.add_argument("--state", type=str.upper, help="only those in this state (READY, CLAIMED, PARKED)")
        parser.add_argument(
            "--limit", type=whole_number(1, 100000), default=1000, help="at most so many (default 1000)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        with _board(self) as board:
            jobs = board.jobs(parsed_args.topic, parsed_args.limit)
        shown = [job for job in jobs if parsed_args.state in (None, job.state)]
        return _LISTED, [row(job.to_dict(), _LISTED) for job in shown]


class ShowJob(ShowOne):
    """Show a job: what it is for, who works on it and until when, how often it was tried, and why it failed."""

    examples = ("virtflow job show 6c1e5d5a-1c1c-4d5e-9d6c-5f2f6f0f8a11",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return add_job(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        with _board(self) as board:
            return _SHOWN, row(_find(board, parsed_args.job).to_dict(), _SHOWN)


class _Change(Command):
    """A command that changes one job and says nothing."""

    done: str
    needed: str

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return add_job(super().get_parser(prog_name))

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with _board(self) as board:
            job = _find(board, parsed_args.job)
            if not self.change(board, job):
                reason = f"it is not {self.needed}" if job.state != self.needed else "it has just changed"
                raise Conflict(action=self.done, kind="job", name=job.name, reason=reason)

    def change(self, board: Board, job: JobRecord) -> bool:
        raise NotImplementedError


class ReleaseJob(_Change):
    """Take a job from the worker that has it, so that another may. The worker goes on while it holds the operation."""

    examples = ("virtflow job release 6c1e5d5a-1c1c-4d5e-9d6c-5f2f6f0f8a11",)
    done, needed = "release", "CLAIMED"

    def change(self, board: Board, job: JobRecord) -> bool:
        return board.release(job.id)


class ParkJob(_Change):
    """Put a job aside that nobody works on: no worker takes it before it is unparked."""

    examples = ("virtflow job park 6c1e5d5a-1c1c-4d5e-9d6c-5f2f6f0f8a11",)
    done, needed = "park", "READY"

    def change(self, board: Board, job: JobRecord) -> bool:
        return board.set_aside(job.id, "parked by an operator")


class UnparkJob(_Change):
    """Let workers take a parked job again, as if it had never been tried."""

    examples = ("virtflow job unpark 6c1e5d5a-1c1c-4d5e-9d6c-5f2f6f0f8a11",)
    done, needed = "unpark", "PARKED"

    def change(self, board: Board, job: JobRecord) -> bool:
        return board.unpark(job.id)


def add_job(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The argument that names a job."""
    parser.add_argument("job", metavar="JOB", help="name of the job, or the beginning of it: its operation's id")
    return parser


@contextmanager
def _board(command: Command | Lister | ShowOne) -> Iterator[Board]:
    from virtflow.worker.boards.opening import open_board

    board = open_board(command.context.config, command.context.database)
    try:
        yield board
    finally:
        board.close()


def _find(board: Board, name: str) -> JobRecord:
    """NotFound; Conflict when several jobs begin so."""
    found = [job for job in board.jobs(limit=100_000) if name and job.name.startswith(name)]
    exact = [job for job in found if job.name == name]
    if not found:
        raise NotFound(kind="job", name=name)
    if not exact and len(found) > 1:
        raise Conflict(action="find", kind="job", name=name, reason=f"{len(found)} jobs begin so")
    return (exact or found)[0]
