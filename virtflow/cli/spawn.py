"""``virtflow spawn``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtflow.cli.command import ShowOne
from virtflow.cli.group import carry_out_group
from virtflow.cli.requesting import Output, add_waiting, carry_out
from virtflow.cli.usage import UsageError, key_value

if TYPE_CHECKING:
    from virtflow.requests import SpawnRequest

_PASSWORD_LIMIT = 1024
_SIMPLE = (
    "name",
    "image",
    "flavor",
    "vcpus",
    "memory_mib",
    "disk_gib",
    "swap_mib",
    "availability_zone",
    "host",
    "title",
    "config_drive",
    "server_group",
    "volumes",
    "boot_volume",
    "boot_volume_gib",
)


class Spawn(ShowOne):
    """Make an instance and start it.

    Waits until it runs. Its size is a flavor, or --vcpus, --memory and --disk together. If anything fails, everything
    that was made is taken back. A request file (-r) has the same fields in YAML or JSON; options override it.
    """

    examples = (
        "virtflow spawn web1 --image debian-12 --flavor small --network blue --ssh-key ~/.ssh/id_ed25519.pub",
        "virtflow spawn db1 --image debian-12 --vcpus 2 --memory 1024 --disk 10 --network blue,ip=10.0.0.9",
        "virtflow spawn web2 --image debian-12 --flavor small --user-data cloud-init.yaml --meta role=web --no-wait",
        "virtflow spawn db2 --image debian-12 --flavor small --ephemeral 10 --ephemeral 2:vfat --swap 512",
        "virtflow spawn web --image debian-12 --flavor small --count 2-5 --server-group spread",
        "virtflow spawn db3 --boot-volume root --volume data --flavor small --network blue",
        "virtflow spawn db4 --image debian-12 --boot-from-image-size 20 --delete-volume --flavor small",
        "virtflow spawn -r request.yaml --plan",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add = parser.add_argument
        add("name", nargs="?", metavar="NAME", help="name of the instance")
        add("-r", "--request", metavar="FILE", help="read the request from a YAML or JSON file")
        add("--image", metavar="IMAGE", help="name or id of the image")
        add("--flavor", metavar="FLAVOR", help="size of the instance")
        add("--vcpus", type=int, metavar="N", help="virtual CPUs")
        add("--memory", type=int, dest="memory_mib", metavar="MiB", help="memory, in MiB")
        add("--disk", type=int, dest="disk_gib", metavar="GiB", help="root disk, in GiB")
        add(
            "--ephemeral",
            action="append",
            dest="ephemeral_gib",
            metavar="GiB[:FS]",
            help="add an empty disk with a file system: ext4, ext3 or vfat",
        )
        add("--swap", type=int, dest="swap_mib", metavar="MiB", help="add a swap disk")
        add("--volume", action="append", dest="volumes", metavar="VOLUME", help="attach this volume, by name or id")
        add(
            "--boot-volume",
            metavar="VOLUME",
            help="boot from this volume, made of an image, in place of --image; without a root disk of its own",
        )
        add(
            "--boot-from-image-size",
            type=int,
            dest="boot_volume_gib",
            metavar="GiB",
            help="boot from a volume of this size, NAME-root, which is made of the image",
        )
        add("--delete-volume", action="store_true", help="delete the volume that it boots from together with it")
        add("--network", action="append", dest="networks", metavar="NET[,ip=A]", help="add a port on this network")
        add("--ssh-key", action="append", dest="ssh_keys", metavar="FILE", help="file with a public key")
        add("--user-data", metavar="FILE", help="file for cloud-init, at most 64 KiB")
        add("--meta", action="append", type=key_value, metavar="K=V", help="metadata that the guest can read")
        add(
            "--file",
            action="append",
            dest="files",
            type=key_value,
            metavar="PATH=FILE",
            help="put FILE at PATH in the guest",
        )
        add("--admin-password-file", metavar="FILE", help="file with the administrator's password")
        add(
            "--config-drive",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="whether to attach a config drive",
        )
        add("--availability-zone", metavar="ZONE", help="only on a host of this zone")
        add("--host", metavar="HOST", help="on this host and no other")
        add("--title", metavar="TEXT", help="a line for people, shown by virsh")
        add("--server-group", metavar="GROUP", help="make it a member of this server group")
        add(
            "--count",
            type=count,
            metavar="MIN[-MAX]",
            help="make several, NAME-1 to NAME-N, as many as the quota allows; a background process runs them",
        )
        add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Output:
        request = build_request(parsed_args)
        if request.most > 1:
            return carry_out_group(self.context, request, parsed_args)
        return carry_out(self.context, request, parsed_args)


def count(text: str) -> tuple[int, int]:
    """An argparse type: MIN or MIN-MAX."""
    least, dash, most = text.partition("-")
    try:
        return int(least), int(most) if dash else int(least)
    except ValueError:
        raise argparse.ArgumentTypeError("must be MIN or MIN-MAX, whole numbers") from None


def build_request(parsed_args: argparse.Namespace) -> SpawnRequest:
    """The request of the file, if any, with what the options say. UsageError, InvalidRequest."""
    from virtflow.requests import SpawnRequest, read_request_file
    from virtflow.requests.disks import parse_ephemeral

    fields: dict[str, Any] = {}
    if parsed_args.request is not None:
        content = read_request_file(parsed_args.request)
        if not isinstance(content, dict):
            return SpawnRequest.parse(content)
        fields = dict(content)
    elif parsed_args.name is None:
        raise UsageError(reason="give the NAME of the instance, or a request file with -r (see `virtflow help spawn`)")
    fields |= {name: value for name in _SIMPLE if (value := getattr(parsed_args, name)) is not None}
    _forget_other_size(parsed_args, fields)
    fields |= _from_files(parsed_args)
    if parsed_args.ephemeral_gib is not None:
        fields["ephemeral_gib"] = [parse_ephemeral(text) for text in parsed_args.ephemeral_gib]
    if parsed_args.count is not None:
        fields["min_count"], fields["max_count"] = parsed_args.count
    if parsed_args.delete_volume:
        fields["delete_volume"] = True
    if parsed_args.networks is not None:
        fields["networks"] = [network(text) for text in parsed_args.networks]
    if parsed_args.meta is not None:
        fields["meta"] = dict(parsed_args.meta)
    return SpawnRequest.parse(fields)


def _forget_other_size(parsed_args: argparse.Namespace, fields: dict[str, Any]) -> None:
    """A flavor on the command line replaces the sizes of the file, and the other way round."""
    sizes = ("vcpus", "memory_mib", "disk_gib")
    if parsed_args.flavor is not None and all(getattr(parsed_args, name) is None for name in sizes):
        for name in sizes:
            fields.pop(name, None)
    if parsed_args.flavor is None and any(getattr(parsed_args, name) is not None for name in sizes):
        fields.pop("flavor", None)


def _from_files(parsed_args: argparse.Namespace) -> dict[str, Any]:
    from virtflow.requests import FILE_LIMIT, USER_DATA_LIMIT, read_input

    fields: dict[str, Any] = {}
    if parsed_args.ssh_keys is not None:
        fields["ssh_keys"] = [
            line
            for path in parsed_args.ssh_keys
            for line in _text(read_input(Path(path).expanduser(), "ssh_keys", 65536)).splitlines()
            if line.strip() and not line.startswith("#")
        ]
    if parsed_args.user_data is not None:
        fields["user_data"] = read_input(parsed_args.user_data, "user_data", USER_DATA_LIMIT)
    if parsed_args.admin_password_file is not None:
        secret = read_input(parsed_args.admin_password_file, "admin_password", _PASSWORD_LIMIT)
        fields["admin_password"] = _text(secret).rstrip("\r\n")
    if parsed_args.files is not None:
        fields["files"] = [
            {"path": path, "content": read_input(source, "files", FILE_LIMIT)} for path, source in parsed_args.files
        ]
    return fields


def _text(data: bytes) -> str:
    # What is no UTF-8 becomes a lone surrogate, and the request refuses it by its field's name.
    return data.decode("utf-8", "surrogateescape")


def network(text: str) -> dict[str, str]:
    """``NET[,ip=A]`` as a field of the request. UsageError."""
    name, *settings = text.split(",")
    fields = {"network": name}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key != "ip" or not value or "address" in fields:
            raise UsageError(reason=f"--network {text[:80]!r}: must be NETWORK or NETWORK,ip=ADDRESS")
        fields["address"] = value
    return fields
