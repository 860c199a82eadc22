"""``virtflow worker``: take jobs from the board, until told to stop."""

from __future__ import annotations

import argparse
import os
import sys

from virtflow.cli.command import Command
from virtflow.cli.usage import UsageError

_TOPICS = ("operations", "host")


class Worker(Command):
    """Run operations, and this host's part of them, as jobs come.

    SIGTERM drains: tasks that run finish, operations are put down, and other workers go on with them. SIGHUP drains,
    and starts anew with the configuration as it is then.
    """

    examples = ("virtflow worker", "virtflow worker --topics operations")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--topics",
            type=_topics,
            default=_TOPICS,
            metavar="T[,T]",
            help="what to take: operations (anybody's), host (what is to be done on this host); both by default",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.cli.logs import configure_logging, log_as_a_service
        from virtflow.worker.service import serve

        _ = self.context.database
        # Nobody sits in front of it: what it tells is for the journal.
        configure_logging(self.context.config, max(1, self.context.options.verbose), self.context.stderr)
        log_as_a_service()
        if serve(self.context.config, parsed_args.topics):
            self.context.close()
            os.execv(sys.executable, [sys.executable, "-P", "-m", "virtflow.cli.main", *sys.argv[1:]])  # noqa: S606 - ourselves


def _topics(text: str) -> tuple[str, ...]:
    topics = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [topic for topic in topics if topic not in _TOPICS]
    if unknown:
        raise UsageError(reason=f"--topics {text[:80]!r}: must be of {', '.join(_TOPICS)}")
    return topics
