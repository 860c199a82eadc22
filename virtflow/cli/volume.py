"""``virtflow volume``: disks that live on their own, and the instances that have them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import Lister, ShowOne, row
from virtflow.cli.requesting import Output, add_waiting, carry_out
from virtflow.cli.usage import key_value, whole_number

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.persistence.volumes import Volume
    from virtflow.requests import Request

_COLUMNS = ("name", "id", "size_gib", "state", "backend", "instance")
_SHOWN = (
    *("id", "name", "project", "size_gib", "state", "type", "backend", "host", "bootable", "encryption", "source"),
    *("meta", "instance", "device", "operation", "created_at"),
)
_GIB = whole_number(1, 65536)


class ListVolumes(Lister):
    """List the volumes of the project. size_gib is in GiB; instance is the one that has it."""

    examples = ("virtflow volume list", "virtflow volume list -f json")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        from virtflow.persistence.volumes import VolumeRepository

        found = VolumeRepository(self.context.database).list(self.context.config.project)
        return _COLUMNS, [row(_plain(self.context, each), _COLUMNS) for each in found]


class ShowVolume(ShowOne):
    """Show a volume: where it is, what it was made of, and which instance has it."""

    examples = ("virtflow volume show data",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the volume")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        return _SHOWN, row(_plain(self.context, _find(self.context, parsed_args.name)), _SHOWN)


class CreateVolume(ShowOne):
    """Make a volume: blank, or of an image, a snapshot, or another volume.

    Which backend it is on is chosen by the room that they have, by its type and by its zone. If anything fails,
    everything that was made is taken back.
    """

    examples = (
        "virtflow volume create data --size 10",
        "virtflow volume create root --size 20 --image debian-12",
        "virtflow volume create copy --source data --type fast --no-wait",
        "virtflow volume create private --size 10 --encrypted",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", metavar="NAME", help="name of the volume")
        add(
            "--size",
            type=_GIB,
            metavar="GiB",
            help="size, in GiB; of a snapshot or volume at least its own, and by default that",
        )
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--image", metavar="IMAGE", help="make it of this image")
        source.add_argument("--snapshot", metavar="NAME", help="make it of this snapshot")
        source.add_argument("--source", metavar="NAME", help="make it of this volume")
        add("--type", metavar="TYPE", help="type of the volume")
        add("--encrypted", action="store_true", help="encrypt what is written to it (LUKS)")
        add("--zone", metavar="ZONE", help="availability zone of its backend")
        add(
            "--for-host",
            metavar="HOST",
            help="host of the instance that is to get it: its backend is there if it can be, and else serves that host",
        )
        add("--meta", action="append", type=key_value, default=[], metavar="K=V", help="a note on it")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.requests import VolumeCreateRequest

        request = VolumeCreateRequest(
            name=parsed_args.name,
            size_gib=parsed_args.size,
            image=parsed_args.image,
            snapshot=parsed_args.snapshot,
            source_volume=parsed_args.source,
            type=parsed_args.type,
            encrypted=parsed_args.encrypted,
            availability_zone=parsed_args.zone,
            for_host=parsed_args.for_host,
            meta=dict(parsed_args.meta),
        )
        return carry_out(self.context, request, parsed_args)


class _OnVolume(ShowOne):
    """An operation on a volume that is there."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name or id of the volume")
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        # The name is what an operation holds, so that two of them on one volume exclude each other.
        name = _find(self.context, parsed_args.name).name
        return carry_out(self.context, self.request(name, parsed_args), parsed_args)

    def request(self, name: str, parsed_args: argparse.Namespace) -> Request:
        raise NotImplementedError


class DeleteVolume(_OnVolume):
    """Remove a volume that no instance has, and of which there are no snapshots.

    It is kept in the trash for a while ([volumes] trash_retention): until it is purged, `virtflow operation undo`
    brings it back.
    """

    examples = ("virtflow volume delete data",)

    def request(self, name: str, parsed_args: argparse.Namespace) -> Request:  # noqa: ARG002
        from virtflow.requests import VolumeDeleteRequest

        return VolumeDeleteRequest(name=name)


class AttachVolume(_OnVolume):
    """Give a volume to an instance, running or stopped.

    The guest sees a new virtio disk, with the volume's id as its serial number.
    """

    examples = ("virtflow volume attach data web1",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("instance", metavar="INSTANCE", help="name or id of the instance")
        return parser

    def request(self, name: str, parsed_args: argparse.Namespace) -> Request:
        from virtflow.requests import VolumeAttachRequest

        return VolumeAttachRequest(name=name, instance=parsed_args.instance)


class DetachVolume(_OnVolume):
    """Take a volume from its instance. A guest that does not let go of it ([volumes] detach_timeout) keeps it."""

    examples = ("virtflow volume detach data",)

    def request(self, name: str, parsed_args: argparse.Namespace) -> Request:  # noqa: ARG002
        from virtflow.requests import VolumeDetachRequest

        return VolumeDetachRequest(name=name)


class ExtendVolume(_OnVolume):
    """Let a volume grow. A running guest that has it sees the new size at once."""

    examples = ("virtflow volume extend data --size 20",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--size", type=_GIB, required=True, metavar="GiB", help="the new size, in GiB")
        return parser

    def request(self, name: str, parsed_args: argparse.Namespace) -> Request:
        from virtflow.requests import VolumeExtendRequest

        return VolumeExtendRequest(name=name, size_gib=parsed_args.size)


def _find(context: Context, name: str) -> Volume:
    from virtflow.persistence.volumes import VolumeRepository

    return VolumeRepository(context.database).find(name, context.config.project)


def _plain(context: Context, volume: Volume) -> dict[str, Any]:
    from virtflow.persistence.instances import InstanceRepository
    from virtflow.persistence.models.base import isoformat
    from virtflow.persistence.volumes import AttachmentRepository

    attachment = AttachmentRepository(context.database).of_volume(volume.id)
    plain = vars(volume) | {"created_at": isoformat(volume.created_at), "instance": None, "device": None}
    if attachment is not None:
        plain |= {"device": attachment.device}
        plain |= {"instance": InstanceRepository(context.database).get(attachment.instance).name}
    return plain
