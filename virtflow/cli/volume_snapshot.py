"""``virtflow volume snapshot``: what volumes had at one moment."""

from __future__ import annotations

import argparse
from typing import Any

from virtflow.cli.command import Lister, ShowOne, row
from virtflow.cli.requesting import Output, add_waiting, carry_out

_COLUMNS = ("name", "id", "volume", "size_gib", "state", "created_at")


class ListSnapshots(Lister):
    """List the volume snapshots of the project. size_gib is in GiB."""

    examples = ("virtflow volume snapshot list",)

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence.models.base import isoformat
        from virtflow.persistence.volumes import SnapshotRepository, VolumeRepository

        database, project = self.context.database, self.context.config.project
        names = {volume.id: volume.name for volume in VolumeRepository(database).list(project)}
        rows: list[dict[str, Any]] = [
            vars(each) | {"volume": names.get(each.volume), "created_at": isoformat(each.created_at)}
            for each in SnapshotRepository(database).list(project)
        ]
        return _COLUMNS, [row(each, _COLUMNS) for each in rows]


class CreateSnapshot(ShowOne):
    """Keep what a volume has now. The volume must not be attached, so that nobody writes to it meanwhile."""

    examples = ("virtflow volume snapshot create before-upgrade --volume data",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the snapshot")
        parser.add_argument("--volume", required=True, metavar="VOLUME", help="name or id of the volume")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.volumes import VolumeRepository
        from virtflow.requests import SnapshotCreateRequest

        volume = VolumeRepository(self.context.database).find(parsed_args.volume, self.context.config.project)
        return carry_out(self.context, SnapshotCreateRequest(name=parsed_args.name, volume=volume.name), parsed_args)


class DeleteSnapshot(ShowOne):
    """Remove a volume snapshot. Until it is purged, `virtflow operation undo` brings it back."""

    examples = ("virtflow volume snapshot delete before-upgrade",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the snapshot")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.volumes import SnapshotRepository
        from virtflow.requests import SnapshotDeleteRequest

        snapshot = SnapshotRepository(self.context.database).find(parsed_args.name, self.context.config.project)
        return carry_out(self.context, SnapshotDeleteRequest(name=snapshot.name), parsed_args)
