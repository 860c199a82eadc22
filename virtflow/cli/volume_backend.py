"""``virtflow volume backend`` and ``virtflow volume type``: where volumes can be, and what they want of that."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, ShowOne, row
from virtflow.cli.requesting import Output
from virtflow.cli.usage import key_value

if TYPE_CHECKING:
    from virtflow.persistence.volume_backends import Backend, BackendRepository

_COLUMNS = ("name", "driver", "zone", "enabled", "total_gib", "allocated_gib", "free_gib")
_SHOWN = (*_COLUMNS, "host", "capabilities", "updated_at")


class ListBackends(Lister):
    """List the volume backends. total_gib is what may be allocated, in GiB."""

    examples = ("virtflow volume backend list",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        return _COLUMNS, [row(_plain(each), _COLUMNS) for each in _backends(self).list()]


class ShowBackend(ShowOne):
    """Show a volume backend: its room, and the capabilities that a type may ask for."""

    examples = ("virtflow volume backend show node1@local",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the backend, HOST@NAME")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        return _SHOWN, row(_plain(_backends(self).get(parsed_args.name)), _SHOWN)


class ListTypes(Lister):
    """List the volume types with what they want of a backend."""

    examples = ("virtflow volume type list",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence.volume_backends import VolumeTypeRepository

        found = VolumeTypeRepository(self.context.database).list()
        return ("name", "capabilities"), [[each.name, dict(each.capabilities)] for each in found]


class CreateType(ShowOne):
    """Create a volume type. A volume of it goes only where every capability is as the type says.

    A value may begin with an operator, as in a flavor's properties: `>=`, `<=`, `>`, `<`, `!=`, `=`.
    """

    examples = (
        "virtflow volume type create fast --capability backend=nvme",
        "virtflow volume type create thin --capability thin=true --capability format=qcow2",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the type")
        text = "what it wants of a backend (see `virtflow volume backend show`)"
        parser.add_argument("--capability", action="append", type=key_value, default=[], metavar="K=V", help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.volume_backends import VolumeTypeRepository
        from virtflow.requests import check_name, check_text

        given = dict(parsed_args.capability)
        pairs = {check_text("capability", key): check_text("capability", value) for key, value in given.items()}
        found = VolumeTypeRepository(self.context.database).create(check_name("name", parsed_args.name), pairs)
        return ("name", "capabilities"), [found.name, dict(found.capabilities)]


def _backends(command: Lister | ShowOne) -> BackendRepository:
    """Without workers with what this host's own are like now."""
    from virtflow.engine.services import Services

    services = Services(command.context.config, command.context.database)
    services["backend_choice"].refresh()
    found: BackendRepository = services["volume_backends"]
    return found


def _plain(backend: Backend) -> dict[str, Any]:
    from virtflow.persistence.models.base import isoformat

    capabilities = dict(backend.capabilities)
    updated_at = isoformat(backend.updated_at)
    return vars(backend) | {"free_gib": backend.free_gib, "capabilities": capabilities, "updated_at": updated_at}
