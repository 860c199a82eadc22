"""``virtflow evacuate`` and ``virtflow host drain``: everything leaves a host."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, row
from virtflow.cli.host import add_host
from virtflow.cli.requesting import Output
from virtflow.cli.usage import UsageError
from virtflow.errors import Conflict

if TYPE_CHECKING:
    from virtflow.engine.leaving import Departure

STILL_THERE = 4
_COLUMNS = ("instance", "host", "operation", "outcome", "reason")


class _Leaving(Lister):
    """A command that ends when all that can leave has left; what has not, it tells with the reason."""

    _departures: list[Departure]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_host(parser)
        parser.add_argument(
            "--at-once", type=_count, metavar="N", help="how many at the same time (default %(default)s)"
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """cliff's, with the exit code that scripts want."""
        super().run(parsed_args)
        return STILL_THERE if any(not each.left for each in self._departures) else 0

    def _shown(self, departures: list[Departure]) -> Output:
        self._departures = departures
        return _COLUMNS, [row(each.to_dict(), _COLUMNS) for each in departures]

    def _tell(self, departure: Departure) -> None:
        words = f"is on {departure.host}" if departure.left else f"stays on {departure.host}: {departure.reason}"
        self.context.stderr.write(f"{departure.instance} {words}\n")

    def _check_workers(self) -> None:
        if not self.context.has_workers:
            raise UsageError(reason="only workers move instances between hosts ([engine] mode = workers)")


class Evacuate(_Leaving):
    """Make anew on other hosts what a dead host ran, with the same names, addresses and sizes.

    Disks that the hosts share are kept. Otherwise they are made from the instance's image again, and what the guest had
    written is on the dead host alone: there it goes to the trash when the host is back, before its worker takes any
    work. The host has to be down and fenced: cut its power, and say so with `virtflow host fence`, or with --fenced.

    Exit code 4: some instances could not be evacuated. Whatever interrupts this, do it again to go on with the rest.
    """

    examples = ("virtflow evacuate node3 --fenced", "virtflow evacuate node3 --host node7 --at-once 8")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.set_defaults(at_once=4)
        parser.add_argument("--fenced", action="store_true", help="nothing runs on HOST: I have made sure")
        parser.add_argument(
            "--host", dest="to", metavar="HOST", help="where all of it has to go; left out, the scheduler chooses"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.engine.leaving import evacuate_host

        self._check_workers()
        with self.context.runner() as runner:
            hosts = runner.core.hosts
            record = hosts.get(parsed_args.host)
            if parsed_args.fenced:
                if record.down(self.context.config.worker.host_down_after, hosts.now()) is None:
                    raise Conflict(action="evacuate", kind="host", name=record.name, reason="its worker lives")
                hosts.fence(record.name)
            options: dict[str, Any] = {"to": parsed_args.to, "at_once": parsed_args.at_once}
            return self._shown(evacuate_host(runner, record.name, tell=self._tell, **options))


class DrainHost(_Leaving):
    """Let no new instances go to a host until it is enabled again, and move everything off that is there.

    Running guests are migrated as they run. With --cold they are shut down, moved, started, and the move is confirmed.

    Exit code 4: some instances are still there, each told with the reason. Nothing is kept but what is on which host:
    whatever interrupts this, do it again to go on with what is left; moves that are under way are waited for.
    """

    examples = (
        "virtflow host drain node1",
        "virtflow host drain node1 --cold --at-once 4",
        "virtflow host drain node1 --mark",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.set_defaults(at_once=2)
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--live", dest="how", action="store_const", const="live", help="as they run (default)")
        how.add_argument("--cold", dest="how", action="store_const", const="cold", help="shut down and moved")
        how.add_argument("--mark", dest="how", action="store_const", const="mark", help="move nothing")
        parser.set_defaults(how="live")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.engine.leaving import drain_host
        from virtflow.persistence.hosts import HostRepository

        if parsed_args.how == "mark":
            HostRepository(self.context.database).drain(parsed_args.host)
            return self._shown([])
        self._check_workers()
        with self.context.runner() as runner:
            options: dict[str, Any] = {"how": parsed_args.how, "at_once": parsed_args.at_once}
            return self._shown(drain_host(runner, parsed_args.host, tell=self._tell, **options))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return int(text)
