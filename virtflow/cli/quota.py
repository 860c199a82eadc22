"""``virtflow quota``: what a project may have. Units: pieces, MiB, GiB; -1 is unlimited."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Command, Lister
from virtflow.cli.requesting import Output
from virtflow.cli.usage import UsageError, whole_number

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.quotas import QuotaRepository

_COLUMNS = ("resource", "used", "reserved", "limit")
_RESOURCES = ("instances", "vcpus", "memory_mib", "disk_gib", "volumes", "volume_gib")


class ListQuotas(Lister):
    """List the limits and the use of every project that has instances, and of the configured one."""

    examples = ("virtflow quota list", "virtflow quota list -f csv")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        quotas = _quotas(self.context)
        projects = {charge.project for charge in quotas.charges()} | {self.context.config.project}
        return ("project", *_COLUMNS), [[name, *row] for name in sorted(projects) for row in _rows(quotas, name)]


class ShowQuota(Lister):
    """Show the limits and the use of a project."""

    examples = ("virtflow quota show", "virtflow quota show customers -f json")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("project", nargs="?", metavar="PROJECT", help="default: the configured one")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        return _COLUMNS, _rows(_quotas(self.context), parsed_args.project or self.context.config.project)


class CreateQuota(Lister):
    """Give a project limits of its own, or change them. A limit below what is used refuses only what comes next."""

    examples = (
        "virtflow quota create customers --instances 50 --memory 262144",
        "virtflow quota create default --vcpus -1",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("project", metavar="PROJECT", help="name of the project")
        limit = whole_number(-1, 2**40)
        parser.add_argument("--instances", type=limit, metavar="N", help="instances")
        parser.add_argument("--vcpus", type=limit, metavar="N", help="virtual CPUs")
        parser.add_argument("--memory", type=limit, dest="memory_mib", metavar="MiB", help="memory, in MiB")
        parser.add_argument("--disk", type=limit, dest="disk_gib", metavar="GiB", help="disk space, in GiB")
        parser.add_argument("--volumes", type=limit, metavar="N", help="volumes")
        parser.add_argument("--volume-gib", type=limit, metavar="GiB", help="volumes and their snapshots, in GiB")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import check_name

        limits = {name: value for name in _RESOURCES if (value := getattr(parsed_args, name)) is not None}
        if not limits:
            raise UsageError(
                reason="give at least one of --instances, --vcpus, --memory, --disk, --volumes, --volume-gib"
            )
        project = check_name("project", parsed_args.project)
        quotas = _quotas(self.context)
        for resource, limit in limits.items():
            quotas.set_limit(project, resource, limit)
        return _COLUMNS, _rows(quotas, project)


class DeleteQuota(Command):
    """Set the limits of a project back to the configured defaults."""

    examples = ("virtflow quota delete customers",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("project", metavar="PROJECT", help="name of the project")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.requests import check_name

        project = check_name("project", parsed_args.project)
        quotas = _quotas(self.context)
        for resource, limit in _defaults(self.context).items():
            quotas.set_limit(project, resource, limit)


def _quotas(context: Context) -> QuotaRepository:
    from virtflow.persistence.quotas import QuotaRepository

    return QuotaRepository(context.database, _defaults(context))


def _defaults(context: Context) -> dict[str, int]:
    return {name: getattr(context.config.quota, name) for name in _RESOURCES}


def _rows(quotas: QuotaRepository, project: str) -> list[list[Any]]:
    usage = quotas.usage(project)
    return [[name, usage[name].used, usage[name].reserved, usage[name].limit] for name in _RESOURCES]
