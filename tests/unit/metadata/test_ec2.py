"""The EC2 tree of a config drive."""

from __future__ import annotations

import json
from typing import Any

from virtflow.metadata.ec2 import EC2_VERSIONS, ec2_tree
from virtflow.metadata.instance_metadata import InstanceMetadata

VIF: Any = {
    "port_id": "p",
    "network_id": "n",
    "mac": "52:54:00:00:00:01",
    "tap": "vf1",
    "mtu": 1500,
    "addresses": [
        {"address": "fd00::5", "cidr": "fd00::/64", "gateway": None},
        {"address": "10.0.0.5", "cidr": "10.0.0.0/24", "gateway": None},
    ],
}


def metadata(**more: Any) -> InstanceMetadata:
    given: dict[str, Any] = {"uuid": "b7c1", "name": "web1", "hostname": "web1", "project": "demo", "random_seed": b""}
    return InstanceMetadata(**{**given, **more})


def document(md: InstanceMetadata, version: str = "latest") -> Any:
    return json.loads(ec2_tree(md)[f"ec2/{version}/meta-data.json"])


def test_every_version_and_latest_has_meta_data_and_user_data() -> None:
    files = ec2_tree(metadata(user_data=b"#!/bin/sh"))
    assert files.keys() == {
        f"ec2/{version}/{name}" for version in (*EC2_VERSIONS, "latest") for name in ("meta-data.json", "user-data")
    }
    assert files["ec2/2009-04-04/user-data"] == b"#!/bin/sh"


def test_without_user_data_there_is_no_such_file() -> None:
    assert not [path for path in ec2_tree(metadata()) if path.endswith("user-data")]


def test_only_the_wanted_versions_are_there() -> None:
    assert ec2_tree(metadata(), ["2009-04-04"]).keys() == {
        "ec2/2009-04-04/meta-data.json",
        "ec2/latest/meta-data.json",
    }


def test_keys_are_numbered_and_have_no_name() -> None:
    found = document(metadata(public_keys={"work": "ssh-ed25519 W", "home": "ssh-ed25519 H"}))
    assert found["public-keys"] == {"0": {"openssh-key": "ssh-ed25519 H"}, "1": {"openssh-key": "ssh-ed25519 W"}}
    assert b"_name" not in b"".join(ec2_tree(metadata(public_keys={"work": "k"})).values())


def test_an_old_version_has_only_what_it_knew() -> None:
    md = metadata(kernel_id="k", block_devices={"root": "/dev/vda"})
    assert "kernel-id" not in document(md, "2007-10-10")
    assert document(md, "2007-12-15")["kernel-id"].startswith("aki-")
    assert "placement" not in document(md, "2007-12-15")
    assert document(md, "2009-04-04")["placement"] == {"availability-zone": "nova"}
    assert document(md, "1.0").keys() == {
        *("ami-id", "ami-launch-index", "ami-manifest-path", "hostname", "instance-id", "local-ipv4"),
        *("reservation-id", "security-groups"),
    }


def test_ids_have_the_form_of_ec2_and_stay_the_same() -> None:
    first, again, other = (document(metadata(uuid=uuid, image_id="i")) for uuid in ("u1", "u1", "u2"))
    assert first == again
    assert first["instance-id"] != other["instance-id"]
    assert len(first["instance-id"]) == len("i-12345678")
    assert first["ami-id"].startswith("ami-")


def test_the_first_ipv4_address_is_the_local_one() -> None:
    assert document(metadata(vifs=[VIF]))["local-ipv4"] == "10.0.0.5"
    assert document(metadata())["local-ipv4"] == ""
