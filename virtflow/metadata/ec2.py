"""The EC2 tree of a config drive, for agents that know nothing else.

Versions and keys: https://docs.openstack.org/nova/latest/user/metadata.html#metadata-ec2-format. Ids are in EC2's form
and follow from ours: the same instance always has the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from virtflow.metadata.instance_metadata import LATEST, InstanceMetadata

EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)

# What came with which version: a guest that asks for an old one gets what it knew.
_SINCE = {
    "local-hostname": "2007-01-19",
    "public-hostname": "2007-01-19",
    "public-ipv4": "2007-01-19",
    "product-codes": "2007-03-01",
    "instance-type": "2007-08-29",
    "kernel-id": "2007-12-15",
    "ramdisk-id": "2007-12-15",
    "block-device-mapping": "2007-12-15",
    "placement": "2008-02-01",
    "instance-action": "2008-09-01",
}


def ec2_tree(md: InstanceMetadata, versions: Sequence[str] = EC2_VERSIONS) -> dict[str, bytes]:
    """The files, by relative path; ``latest`` is there besides ``versions``."""
    files = {}
    for version in (*versions, LATEST):
        document = {key: value for key, value in _meta_data(md).items() if _known(key, version)}
        files[f"ec2/{version}/meta-data.json"] = json.dumps(document, sort_keys=True).encode("ascii")
        if md.user_data is not None:
            files[f"ec2/{version}/user-data"] = md.user_data
    return files


def _meta_data(md: InstanceMetadata) -> dict[str, Any]:
    instance = f"i-{_short(md.uuid)}"
    addresses = [each["address"] for vif in md.vifs for each in vif["addresses"] if ":" not in each["address"]]
    values: dict[str, Any] = {
        "ami-id": f"ami-{_short(md.image_id)}" if md.image_id else "",
        "ami-launch-index": md.launch_index,
        "ami-manifest-path": "",
        "block-device-mapping": dict(md.block_devices),
        "hostname": md.hostname,
        "instance-action": "none",
        "instance-id": instance,
        "instance-type": md.instance_type,
        "local-hostname": md.hostname,
        "local-ipv4": addresses[0] if addresses else "",
        "placement": {"availability-zone": md.availability_zone},
        "product-codes": [],
        "public-hostname": md.hostname,
        "public-ipv4": "",
        "reservation-id": f"r-{_short(md.uuid)}",
        "security-groups": [],
    }
    if md.kernel_id is not None:
        values["kernel-id"] = f"aki-{_short(md.kernel_id)}"
    if md.ramdisk_id is not None:
        values["ramdisk-id"] = f"ari-{_short(md.ramdisk_id)}"
    if md.public_keys:
        keys = [key for _, key in sorted(md.public_keys.items())]
        values["public-keys"] = {str(number): {"openssh-key": key} for number, key in enumerate(keys)}
    return values


def _short(text: str) -> str:
    """Eight hexadecimal digits, as in EC2's ids."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _known(key: str, version: str) -> bool:
    # "1.0" sorts before every date.
    return version == LATEST or _SINCE.get(key, "") <= version
