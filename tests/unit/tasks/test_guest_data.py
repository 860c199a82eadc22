"""How what a request carries reaches the guest: by which way, and what is refused because there is none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.errors import InvalidRequest
from virtflow.metadata.drive_contents import DriveContents
from virtflow.tasks.guest_data import drive_wanted, guest_data_fields, instance_metadata
from virtflow.tasks.settings import HostSettings

ITEMS = ("key", "network", "metadata", "files")
KEY = "ssh-ed25519 AAAA"


def request(**more: Any) -> dict[str, Any]:
    empty = {"config_drive": None, "ssh_keys": [], "user_data": None, "admin_password": None, "files": None}
    return {**empty, **more}


def image(**properties: str) -> Any:
    return SimpleNamespace(name="debian", properties=properties)


def settings(partition: int = -1, items: tuple[str, ...] = ITEMS, *, force: bool = False) -> HostSettings:
    return HostSettings(
        host="h",
        instances_path=Path("/i"),
        force_config_drive=force,
        config_drive_format="vfat",
        injection_partition=partition,
        injection_items=items,
        injection_mandatory=("files", "admin_password"),
    )


@pytest.mark.parametrize(
    ("asked", "properties", "force", "drive"),
    [
        (True, {}, False, True),
        (None, {}, True, True),
        (None, {}, False, False),
        (False, {}, True, False),
        (None, {"img_config_drive": "mandatory"}, False, True),
        (None, {"img_config_drive": "optional"}, False, False),
    ],
)
def test_a_config_drive_is_wanted_by_request_image_or_configuration(
    asked: bool | None, properties: dict[str, str], force: bool, drive: bool
) -> None:
    assert drive_wanted(request(config_drive=asked), image(**properties), force) is drive


def test_no_config_drive_for_an_image_that_needs_one_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^config_drive: image 'debian' cannot do without one$"):
        drive_wanted(request(config_drive=False), image(img_config_drive="mandatory"), False)


def test_with_a_config_drive_nothing_is_injected() -> None:
    fields = guest_data_fields(request(config_drive=True, admin_password={"secret": "x"}), image(), settings())
    assert fields == {"config_drive": True, "config_drive_format": "vfat", "injection": None}


def test_without_a_config_drive_what_is_switched_on_is_injected() -> None:
    fields = guest_data_fields(request(ssh_keys=[KEY]), image(), settings(partition=3))
    assert fields["injection"] == {"partition": 3, "items": list(ITEMS), "mandatory": ["files"]}


def test_an_image_with_a_kernel_of_its_own_has_no_partitions() -> None:
    assert guest_data_fields(request(), image(), settings(), kernel=True)["injection"]["partition"] == 0
    assert guest_data_fields(request(), image(), settings(partition=-2), kernel=True)["injection"] is None


def test_nothing_is_injected_into_a_volume_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert guest_data_fields(request(), image(), settings(), volume=True)["injection"] is None
    assert "volume" in caplog.text


@pytest.mark.parametrize("field", ["ssh_keys", "user_data", "admin_password", "files"])
def test_what_could_not_reach_the_guest_is_refused_by_its_field(field: str) -> None:
    wanted = request(**{field: [KEY]})
    with pytest.raises(InvalidRequest, match=f"^{field}: would not reach the guest"):
        guest_data_fields(wanted, image(), settings(partition=-2))
    with pytest.raises(InvalidRequest, match=f"^{field}: would not reach the guest.* volume$"):
        guest_data_fields(wanted, image(), settings(), volume=True)
    assert guest_data_fields(wanted, image(), settings(partition=-2, force=True))["config_drive"]


def test_user_data_and_an_unset_password_are_not_injected() -> None:
    for field in ("user_data", "admin_password"):
        with pytest.raises(InvalidRequest, match=f"^{field}: .*injection of it is off"):
            guest_data_fields(request(**{field: {"secret": field}}), image(), settings())
    on = settings(items=(*ITEMS, "admin_password"))
    assert (
        "admin_password"
        in guest_data_fields(request(admin_password={"secret": "x"}), image(), on)["injection"]["items"]
    )


def test_the_metadata_have_all_that_the_specification_knows() -> None:
    spec = {
        "name": "web1",
        "availability_zone": "az1",
        "launch_index": 2,
        "meta": {"role": "web"},
        "flavor": "small",
        "image": {"id": "i1"},
        "kernel": {"id": "k1"},
        "ramdisk": None,
        "hardware": {"disk_bus": "scsi"},
        "ephemerals": [{}, {}],
        "swap_mib": 64,
    }
    files = json.dumps([{"path": "/etc/x", "content": base64.b64encode(b"hi").decode()}]).encode()
    secrets = {"ssh_keys": f"{KEY}\n{KEY} 2".encode(), "files": files, "admin_password": b"pw", "user_data": b"#!"}
    vifs = [
        {
            "port_id": "p",
            "network_id": "n",
            "mac": "52:54:00:00:00:01",
            "tap": "vf1",
            "mtu": 1500,
            "addresses": [{"address": "10.0.0.5", "cidr": "10.0.0.0/24", "gateway": None}],
        }
    ]
    contents = DriveContents(vendor_data={"a": 1}, network_template="%%\n$address\n")
    md = instance_metadata(spec, "u1", "demo", vifs, secrets, contents)
    assert (md.files[0].path, md.files[0].content, md.admin_password, md.user_data) == ("/etc/x", b"hi", "pw", b"#!")
    assert md.public_keys == {"key-0": KEY, "key-1": f"{KEY} 2"}
    assert md.network_config == b"10.0.0.5\n"
    assert (md.vendor_data, md.vendor_data2) == ({"a": 1}, {"static": {"a": 1}})
    assert md.block_devices == {
        "ami": "sda",
        "root": "/dev/sda",
        "ephemeral0": "/dev/sdb",
        "ephemeral1": "/dev/sdc",
        "swap": "/dev/sdd",
    }
    assert (md.kernel_id, md.ramdisk_id, md.instance_type, md.launch_index) == ("k1", None, "small", 2)
