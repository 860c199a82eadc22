"""``virtflow audit``."""

from __future__ import annotations

import argparse

from virtflow.cli.command import Lister
from virtflow.cli.requesting import Output

FOUND = 5
_COLUMNS = ("kind", "identity", "reason", "operation")


class Audit(Lister):
    """Look for what nobody answers for: files, domains, taps, filters, ports, locks, quota.

    Compares this host with ledger and database, changes nothing, and prints what does not fit. Exit code 0 when there
    is nothing, 5 otherwise.
    """

    examples = ("virtflow audit", "virtflow audit -f json")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.engine.audit import audit

        _ = self.context.database
        self._found = audit(self.context.config)
        return _COLUMNS, [[str(getattr(finding, name) or "") for name in _COLUMNS] for finding in self._found]

    def run(self, parsed_args: argparse.Namespace) -> int:
        """cliff's, with the exit code that scripts want."""
        super().run(parsed_args)
        return FOUND if self._found else 0
