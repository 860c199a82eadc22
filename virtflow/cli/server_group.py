"""``virtflow server-group``: instances that must, or must not, share a host."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Command, Lister, ShowOne, row
from virtflow.cli.requesting import Output

if TYPE_CHECKING:
    from virtflow.persistence.server_groups import ServerGroup, ServerGroupRepository

_COLUMNS = ("name", "id", "policy", "members")
_SHOWN = ("id", "name", "project", "policy", "members", "created_at")


class ListServerGroups(Lister):
    """List the server groups of the project, with the names of their members."""

    examples = ("virtflow server-group list", "virtflow server-group list -f json")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        groups = _groups(self)
        return _COLUMNS, [row(_plain(groups, each), _COLUMNS) for each in groups.list(self.context.config.project)]


class ShowServerGroup(ShowOne):
    """Show a server group: its policy, and each member with its host."""

    examples = ("virtflow server-group show spread",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the server group")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        groups = _groups(self)
        group = groups.get(parsed_args.name, self.context.config.project)
        members = [{"name": each.name, "id": each.instance, "host": each.host} for each in groups.members(group.id)]
        return _SHOWN, row(_plain(groups, group) | {"members": members}, _SHOWN)


class CreateServerGroup(ShowOne):
    """Create a server group. With affinity its members share one host; with anti-affinity no two of them do."""

    examples = (
        "virtflow server-group create spread --policy anti-affinity",
        "virtflow server-group create together --policy affinity",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        from virtflow.scheduler.policies import POLICIES

        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the server group")
        parser.add_argument("--policy", required=True, choices=POLICIES, help="where its members may be")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import check_name

        groups = _groups(self)
        name = check_name("name", parsed_args.name)
        group = groups.create(name, self.context.config.project, parsed_args.policy)
        return _SHOWN, row(_plain(groups, group), _SHOWN)


class DeleteServerGroup(Command):
    """Delete a server group that has no members."""

    examples = ("virtflow server-group delete spread",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the server group")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        _groups(self).delete(parsed_args.name, self.context.config.project)


def _groups(command: Command | Lister | ShowOne) -> ServerGroupRepository:
    from virtflow.persistence.server_groups import ServerGroupRepository

    return ServerGroupRepository(command.context.database)


def _plain(groups: ServerGroupRepository, group: ServerGroup) -> dict[str, Any]:
    from virtflow.persistence.models.base import isoformat

    members = [each.name for each in groups.members(group.id)]
    return vars(group) | {"members": members, "created_at": isoformat(group.created_at)}
