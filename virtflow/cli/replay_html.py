"""``virtflow replay html``: the report that can be mailed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.cli.command import Command
from virtflow.cli.replay_source import add_recording, as_reference, recording_of, reference_of

if TYPE_CHECKING:
    from virtflow.replay.recording import Recording


class Html(Command):
    """Write a report of an operation: one HTML file that needs nothing else, and loads nothing.

    It shows the graph at any moment, every attempt with its inputs, result and error, who ran it, and what is left.
    Secrets are masked, as in an export. With --against, the XML that tasks made is compared with another operation's.
    """

    examples = (
        "virtflow replay html 12 -o failed.html",
        "virtflow replay html --last -o report.html --force",
        "virtflow replay html 12 --against 11 -o failed.html",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
        parser.add_argument("--against", metavar="ID|FILE", help="another operation, whose XML to compare with")
        parser.add_argument("--force", action="store_true", help="replace the file if there is one")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.replay.report.page import write

        against = parsed_args.against
        recording = self._masked(reference_of(parsed_args))
        other = None if against is None else self._masked(as_reference(against))
        size = write(recording, parsed_args.output, other, replace_existing=parsed_args.force)
        self.app.stdout.write(f"{parsed_args.output}: {-(-size // 1000)} kB\n")

    def _masked(self, reference: str | Path) -> Recording:
        """As it would be exported. The values of secrets are known only where the operation ran."""
        from virtflow.replay.redacting import redact, secrets_of

        recording = recording_of(self.context, reference)
        if isinstance(reference, Path) or recording.redacted:
            return redact(recording)
        return redact(recording, secrets_of(recording, self.context.database, self.context.config.secrets.key_file))
