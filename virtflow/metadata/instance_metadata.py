"""What a guest learns about itself, as OpenStack's config drive tree.

Versions and keys: https://docs.openstack.org/nova/latest/user/metadata.html. Everything here is pure and gives the
same bytes for the same input. Nothing that a user named becomes a name in the tree: injected files are numbered.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtflow.errors import InvalidRequest
from virtflow.metadata.network_data import Vif, network_data

VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
)
LATEST = "latest"

RANDOM_SEED_BYTES = 512
USER_DATA_LIMIT = 64 * 1024
"""Bytes, before any encoding."""
PATH_LIMIT = 255
"""Characters of the path of an injected file."""

# What came with which version: a guest that asks for an old one gets what it knew.
_SINCE = {
    "random_seed": "2013-04-04",
    "vendor_data.json": "2013-10-17",
    "network_data.json": "2015-10-15",
    "project_id": "2015-10-15",
    "devices": "2016-06-30",
    "vendor_data2.json": "2016-10-06",
}


@dataclass(frozen=True)
class InjectedFile:
    """A file that the guest's agent writes to ``path``, inside the guest. InvalidRequest(field="files")."""

    path: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        shown = ascii(self.path[:80])
        if not self.path.startswith("/") or self.path.endswith("/") or not self.path.isprintable():
            raise InvalidRequest(field="files", reason=f"{shown} is not an absolute path of a file")
        if len(self.path) > PATH_LIMIT:
            raise InvalidRequest(field="files", reason=f"{shown}... is longer than {PATH_LIMIT} characters")
        if ".." in self.path.split("/"):
            raise InvalidRequest(field="files", reason=f"{shown} must not contain '..'")


@dataclass(frozen=True, kw_only=True)
class InstanceMetadata:
    """``random_seed`` (RANDOM_SEED_BYTES of ``os.urandom``) is given, so that the same metadata is the same tree.

    Secrets do not show in its ``repr``. Raises InvalidRequest(field="user_data") for more than USER_DATA_LIMIT.
    """

    uuid: str
    name: str
    hostname: str
    project: str
    random_seed: bytes = field(repr=False)
    availability_zone: str = "nova"
    launch_index: int = 0
    public_keys: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    user_data: bytes | None = field(default=None, repr=False)
    files: tuple[InjectedFile, ...] = ()
    admin_password: str | None = field(default=None, repr=False)
    vifs: Sequence[Vif] = ()
    vendor_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    vendor_data2: Mapping[str, Any] | None = field(default=None, repr=False)
    network_config: bytes | None = None
    """A rendered /etc/network/interfaces: the first of the content files, for agents that know no network_data.json."""
    image_id: str | None = None
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    instance_type: str = ""
    block_devices: Mapping[str, str] = field(default_factory=dict)
    """EC2's names of the disks (ami, root, ephemeral0, swap) and what they are in the guest."""

    def __post_init__(self) -> None:
        if self.user_data is not None and len(self.user_data) > USER_DATA_LIMIT:
            raise InvalidRequest(
                field="user_data", reason=f"{len(self.user_data)} bytes are more than the {USER_DATA_LIMIT} allowed"
            )


def tree(md: InstanceMetadata, versions: Sequence[str] = VERSIONS) -> dict[str, bytes]:
    """The files of the config drive, by relative path, sorted. ``latest`` is there besides ``versions``."""
    paths = {f"openstack/{_content_path(number)}": content for number, content in enumerate(_contents(md))}
    network = _json(network_data(md.vifs))
    for version in (*versions, LATEST):
        documents = {
            "meta_data.json": _json(_meta_data(md, version)),
            "user_data": md.user_data,
            "vendor_data.json": _json(md.vendor_data),
            "network_data.json": network,
            "vendor_data2.json": None if md.vendor_data2 is None else _json(md.vendor_data2),
        }
        for name, content in documents.items():
            if content is not None and _known(name, version):
                paths[f"openstack/{version}/{name}"] = content
    return dict(sorted(paths.items()))


def _meta_data(md: InstanceMetadata, version: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "uuid": md.uuid,
        "name": md.name,
        "hostname": md.hostname,
        "availability_zone": md.availability_zone,
        "launch_index": md.launch_index,
        "public_keys": dict(md.public_keys),
        "keys": [{"name": name, "type": "ssh", "data": data} for name, data in sorted(md.public_keys.items())],
        "meta": dict(md.meta),
        "files": [
            {"content_path": f"/{_content_path(number)}", "path": each.path}
            for number, each in enumerate(md.files, start=0 if md.network_config is None else 1)
        ],
        "project_id": md.project,
        "random_seed": base64.b64encode(md.random_seed).decode("ascii"),
        "devices": [],
    }
    if md.admin_password is not None:
        values["admin_pass"] = md.admin_password
    if md.network_config is not None:
        values["network_config"] = {"name": "network_config", "content_path": f"/{_content_path(0)}"}
    return {key: value for key, value in values.items() if _known(key, version)}


def _contents(md: InstanceMetadata) -> list[bytes]:
    """What is numbered under ``content``: the network configuration first, then the files."""
    return [*([] if md.network_config is None else [md.network_config]), *(each.content for each in md.files)]


def _content_path(number: int) -> str:
    return f"content/{number:04d}"


def _known(name: str, version: str) -> bool:
    return version == LATEST or _SINCE.get(name, "") <= version


def _json(value: Any) -> bytes:
    # ASCII: a lone surrogate in a value is then carried as an escape, not an encoding error that quotes the value.
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode("ascii")
