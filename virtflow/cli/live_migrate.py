"""``virtflow live-migrate``."""

from __future__ import annotations

import argparse
from typing import Any

from virtflow.cli.command import ShowOne
from virtflow.cli.requesting import Output, add_waiting, carry_out
from virtflow.cli.resize import find_instance
from virtflow.cli.usage import seconds


class LiveMigrate(ShowOne):
    """Move an instance to another host while it runs.

    Its disks are copied unless both hosts share them. Until the guest has arrived it runs where it was, and `virtflow
    operation cancel` leaves it there; afterwards there is no undo: live-migrate it back.
    """

    examples = (
        "virtflow live-migrate web1",
        "virtflow live-migrate web1 --host node7 --bandwidth 100 --complete-within 600 --on-timeout force",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", metavar="NAME", help="name or id of the instance")
        add("--host", metavar="HOST", help="where it has to go; left out, the scheduler chooses")
        add("--block", action="store_true", help="insist on copying the disks: refused where both hosts share them")
        switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
        add("--post-copy", **switch, help="let it run over there after one pass, and fetch what is left from here")
        add("--auto-converge", **switch, help="slow it down when its memory changes faster than it can be sent")
        add("--bandwidth", type=int, metavar="MiB/s", help="what the migration may take; 0 is no limit")
        add("--complete-within", type=seconds, metavar="S", help="seconds after which --on-timeout applies")
        add("--on-timeout", choices=("abort", "force"), help="let it stay, or halt it until it has arrived")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import LiveMigrateRequest

        given = ("host", "block", "post_copy", "auto_converge", "bandwidth", "complete_within", "on_timeout")
        fields: dict[str, Any] = {name: getattr(parsed_args, name) for name in given}
        request = LiveMigrateRequest(name=find_instance(self.context, parsed_args.name).name, **fields)
        return carry_out(self.context, request, parsed_args)
