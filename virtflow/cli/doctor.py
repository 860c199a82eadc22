"""``virtflow doctor``."""

from __future__ import annotations

import argparse
from dataclasses import astuple

from virtflow.cli.command import Lister
from virtflow.cli.requesting import Output


class Doctor(Lister):
    """Tell what this host lacks, and the command that mends it.

    Exit code 1 when something is missing.
    """

    examples = ("virtflow doctor", "virtflow doctor -f json")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.cli.host_checks import CHECKS

        self._found = [check(self.context.config) for check in CHECKS]
        return ("check", "status", "detail", "fix"), [astuple(finding) for finding in self._found]

    def run(self, parsed_args: argparse.Namespace) -> int:
        """cliff's, with the exit code that scripts want."""
        super().run(parsed_args)
        return int(any(finding.status == "MISSING" for finding in self._found))
