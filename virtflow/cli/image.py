"""``virtflow image``: images of the configured source. Files are added to, and removed from, the local catalog only."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.cli.command import Lister, ShowOne, row
from virtflow.cli.requesting import Output, add_waiting, carry_out
from virtflow.cli.usage import key_value, whole_number
from virtflow.errors import Conflict

if TYPE_CHECKING:
    from virtflow.cli.context import Context
    from virtflow.images.catalog import LocalCatalog
    from virtflow.images.records import ImageRecord
    from virtflow.images.sources import ImageSource

_LISTED = ("name", "id", "disk_format", "size", "virtual_size", "min_disk", "min_ram")
_SHOWN = (
    "id",
    "name",
    "source",
    "disk_format",
    "size",
    "virtual_size",
    "checksum",
    "min_disk",
    "min_ram",
    "properties",
)


class ListImages(Lister):
    """List the images that instances can be made from."""

    examples = ("virtflow image list", "virtflow image list -f value -c name")

    def take_action(self, parsed_args: argparse.Namespace) -> Output:  # noqa: ARG002
        return _LISTED, [row(record.to_dict(), _LISTED) for record in image_source(self.context).list()]


class ShowImage(ShowOne):
    """Show an image. Sizes are bytes, min_disk GiB, min_ram MiB."""

    examples = ("virtflow image show debian-12",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="IMAGE", help="name or id")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        return _shown(image_source(self.context).get(parsed_args.image))


class AddImage(ShowOne):
    """Copy an image file into the local catalog, after a look at whether it is what it claims to be."""

    examples = (
        "virtflow image add debian-12 debian-12-generic-amd64.qcow2",
        "virtflow image add tiny tiny.raw --disk-format raw --min-disk 1 --property os_type=linux",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the image")
        parser.add_argument("file", metavar="FILE", help="the image file")
        parser.add_argument("--disk-format", default="qcow2", metavar="FORMAT", help="qcow2 (default), raw, vmdk ...")
        parser.add_argument("--min-disk", type=whole_number(0, 65536), default=0, metavar="GiB", help="smallest disk")
        parser.add_argument("--min-ram", type=whole_number(0, 2**24), default=0, metavar="MiB", help="smallest memory")
        parser.add_argument("--property", action="append", type=key_value, default=[], metavar="K=V", help="a property")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        record = _catalog(self.context, "add", parsed_args.name).add(
            Path(parsed_args.file),
            parsed_args.name,
            parsed_args.disk_format,
            parsed_args.min_disk,
            parsed_args.min_ram,
            properties=dict(parsed_args.property),
        )
        return _shown(record)


class CreateImage(ShowOne):
    """Make an image of an instance's root disk, while its guest goes on.

    The image is what the disk has when the copying begins. It goes where images come from.
    """

    examples = (
        "virtflow image create golden --from web1",
        "virtflow image create db-2026-03 --from db1 --quiesce",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="name of the image")
        text = "name or uuid of the instance"
        parser.add_argument("--from", dest="instance", required=True, metavar="INSTANCE", help=text)
        text = "freeze the guest's file systems for that moment; needs the QEMU guest agent in it"
        parser.add_argument("--quiesce", action="store_true", help=text)
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.persistence.instances import InstanceRepository
        from virtflow.requests import ImageCreateRequest

        project = self.context.config.project
        instance = InstanceRepository(self.context.database).find(parsed_args.instance, project)
        request = ImageCreateRequest(name=parsed_args.name, instance=instance.name, quiesce=parsed_args.quiesce)
        return carry_out(self.context, request, parsed_args)


class RemoveImage(ShowOne):
    """Remove an image from the local catalog. Instances made from it keep running."""

    examples = ("virtflow image remove debian-11",)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="IMAGE", help="name or id")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        return _shown(_catalog(self.context, "remove", parsed_args.image).remove(parsed_args.image))


class PruneImages(Lister):
    """Remove from this host's cache the bases that nobody uses, and what interrupted downloads have left.

    A base in use is one that a disk stands on, or that an operation refers to; deleted instances use theirs until they
    are purged. Prints the files that were removed. What is removed is fetched or made again when it is needed.
    """

    examples = ("virtflow image prune", "virtflow image prune --older-than 3600")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        text = "remove what was last used S seconds ago or earlier, instead of [instances] base_retention"
        parser.add_argument("--older-than", type=whole_number(0, 10**9), metavar="S", help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        from virtflow.engine.pruning import prune_images
        from virtflow.engine.services import Services

        config = self.context.config
        older_than = config.instances.base_retention if parsed_args.older_than is None else parsed_args.older_than
        removed = prune_images(Services(config, self.context.database), older_than)
        return ("path",), [(str(path),) for path in removed]


def image_source(context: Context) -> ImageSource:
    """The source that the configuration names."""
    from virtflow.engine import image_sources

    return image_sources.image_source(context.config)


def _catalog(context: Context, action: str, name: str) -> LocalCatalog:
    if context.config.images.source != "catalog":
        reason = "images come from Glance ([images] source); use its own client"
        raise Conflict(action=action, kind="image", name=name[:80], reason=reason)
    from virtflow.images.catalog import LocalCatalog

    return LocalCatalog(context.config.images.catalog)


def _shown(record: ImageRecord) -> Output:
    return _SHOWN, row(record.to_dict(), _SHOWN)
