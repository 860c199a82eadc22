"""``virtflow host``: which hosts there are, what is on them, and whether instances may go there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cliff.columns import FormattableColumn

from virtflow.cli.command import Command, Lister, ShowOne, row
from virtflow.cli.progress import printable
from virtflow.cli.requesting import Output
from virtflow.cli.usage import UsageError, key_value
from virtflow.errors import Conflict

if TYPE_CHECKING:
    from virtflow.persistence.decisions import DecisionRecord
    from virtflow.persistence.hosts import HostRecord, HostRepository

_LISTED = ("name", "zone", "status", "state", "vcpus", "memory_mib", "disk_gib", "instances")
_SHOWN = (
    *("name", "zone", "status", "disabled_reason", "state", "down", "heartbeat_at", "uri"),
    *("usage", "labels", "capabilities", "instances"),
)
_TOLD = 10
"""Decisions that ``host show`` tells of."""


class ListHosts(Lister):
    """List hosts. vcpus, memory_mib and disk_gib are what is claimed of what may be claimed."""

    examples = ("virtflow host list", "virtflow host list -f json")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        claims: dict[str, int] = {}
        for allocation in _placement(self).allocations():
            claims[allocation.host] = claims.get(allocation.host, 0) + 1
        rows = []
        for record in _hosts(self).list():
            used = {name: Share(pair) for name, pair in _usage(record).items()}
            plain = _plain(self, record) | used | {"instances": claims.get(record.name, 0)}
            rows.append(row(plain, _LISTED))
        return _LISTED, rows


class ShowHost(ShowOne):
    """Show a host: what is claimed of it and by which instances, and the last decisions that looked at it."""

    examples = ("virtflow host show node1", "virtflow host show node1 -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_host(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.decisions import DecisionRepository

        record = _hosts(self).get(parsed_args.host)
        about = DecisionRepository(self.context.database).about_host(record.name, limit=_TOLD)
        plain = _plain(self, record) | {"usage": _usage(record), "instances": _instances(self, record)}
        verdicts = Verdicts([_verdict(each, record.name) for each in about])
        return (*_SHOWN, "decisions"), [*row(plain, _SHOWN), verdicts]


class _Change(Command):
    """A command that changes one host and says nothing."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_host(parser)
        return parser


class EnableHost(_Change):
    """Let instances go to a host again, also after a drain."""

    examples = ("virtflow host enable node1",)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        _hosts(self).enable(parsed_args.host)


class DisableHost(_Change):
    """Let no new instances go to a host. Those that are there stay."""

    examples = ('virtflow host disable node1 --reason "new fans"',)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--reason", metavar="TEXT", help="why; whoever is refused the host is told")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.requests import check_text

        reason = None if parsed_args.reason is None else check_text("reason", parsed_args.reason)
        _hosts(self).disable(parsed_args.host, reason)


class FenceHost(_Change):
    """Vouch for it that nothing runs on a host any more, and never will again: its power is cut.

    What waits for the host goes on without it: a guest that was being made there is made elsewhere. If it is not true,
    a guest may run twice. The host counts again when its worker gives a sign of life.
    """

    examples = ("virtflow host fence node1 --yes",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--yes", action="store_true", help="nothing runs there: I have made sure")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        hosts = _hosts(self)
        record = hosts.get(parsed_args.host)
        if record.down(self.context.config.worker.host_down_after, hosts.now()) is None:
            raise Conflict(action="fence", kind="host", name=record.name, reason="its worker lives")
        if not parsed_args.yes:
            raise UsageError(reason="make sure that nothing runs there any more, then say --yes")
        hosts.fence(record.name)


class SetHost(_Change):
    """Change the zone or the labels of a host. Flavors may ask for labels (see `virtflow flavor create`)."""

    examples = ("virtflow host set node1 --zone north", "virtflow host set node1 --label disk=ssd --label rack=7")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--zone", metavar="ZONE", help="its availability zone")
        parser.add_argument(
            "--label", action="append", type=key_value, metavar="K=V", help="a label; all others are forgotten"
        )
        parser.add_argument("--no-labels", action="store_true", help="forget all labels")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.requests import check_name, check_text

        if parsed_args.zone is None and parsed_args.label is None and not parsed_args.no_labels:
            raise UsageError(reason="say what to change: --zone, --label or --no-labels")
        zone = None if parsed_args.zone is None else check_name("zone", parsed_args.zone)
        labels = {check_name("label", key): check_text("label", value) for key, value in parsed_args.label or ()}
        change = parsed_args.label is not None or parsed_args.no_labels
        _hosts(self).configure(parsed_args.host, zone=zone, labels=labels if change else None)


def add_host(parser: argparse.ArgumentParser) -> None:
    """The argument that names a host."""
    parser.add_argument("host", metavar="HOST", help="name of the host")


class Share(FormattableColumn[dict[str, int]]):
    """So much of so much, in a table; an object with both elsewhere."""

    def human_readable(self) -> str:
        return f"{self._value['used']} of {self._value['of']}"


class Verdicts(FormattableColumn[list[dict[str, Any]]]):
    """One line per decision in a table."""

    def human_readable(self) -> str:
        return "\n".join(self._line(each) for each in self._value)

    @staticmethod
    def _line(each: dict[str, Any]) -> str:
        told = each["verdict"] if each["reason"] is None else f"{each['verdict']}: {each['reason']}"
        return f"{each['at']}  {each['operation'][:8]}  {printable(told, 160)}"


def _verdict(decision: DecisionRecord, host: str) -> dict[str, Any]:
    """What one decision said of the host."""
    plain = decision.to_dict()
    told = {"operation": decision.operation, "attempt": decision.attempt, "at": plain["at"]}
    if host in plain["refused"]:
        filter_name, reason = plain["refused"][host]
        return told | {"verdict": f"refused by {filter_name}", "reason": reason}
    if decision.chosen == host:
        return told | {"verdict": "chosen", "reason": None}
    weight, best = plain["passed"][host], plain["passed"].get(decision.chosen)
    reason = f"weight {weight:g}" if best is None else f"weight {weight:g}, {decision.chosen} had {best:g}"
    return told | {"verdict": "passed, not chosen", "reason": reason}


def _usage(record: HostRecord) -> dict[str, dict[str, int]]:
    names = ("vcpus", "memory_mib", "disk_gib")
    pairs = zip(names, record.used(), record.capacity(), strict=True)
    return {name: {"used": used, "of": most} for name, used, most in pairs}


def _instances(command: ShowOne, record: HostRecord) -> list[dict[str, Any]]:
    from virtflow.persistence.instances import InstanceRepository

    names = {each.uuid: each.name for each in InstanceRepository(command.context.database).list()}
    return [
        {
            "name": names.get(each.consumer),
            "id": each.consumer,
            "vcpus": each.vcpus,
            "memory_mib": each.memory_mib,
            "disk_gib": each.disk_gib,
        }
        for each in _placement(command).allocations(host=record.name)
    ]


def _plain(command: Lister | ShowOne, record: HostRecord) -> dict[str, Any]:
    from virtflow.persistence.models.base import isoformat

    down = record.down(command.context.config.worker.host_down_after, _hosts(command).now())
    status = "draining" if record.draining else "enabled" if record.enabled else "disabled"
    state = "no worker" if record.worker is None and record.state == "UP" else "up" if down is None else "down"
    return vars(record) | {
        "status": status,
        "state": state,
        "down": down,
        "heartbeat_at": isoformat(record.heartbeat_at),
        "labels": dict(record.labels),
        "capabilities": {name: value for name, value in record.capabilities.items() if name != "machines"},
    }


def _hosts(command: Command | Lister | ShowOne) -> HostRepository:
    from virtflow.persistence.hosts import HostRepository

    return HostRepository(command.context.database)


def _placement(command: Lister | ShowOne) -> Any:
    from virtflow.persistence.placement import PlacementRepository

    return PlacementRepository(command.context.database)
