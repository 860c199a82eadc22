"""Debian's cloud-init in a real Debian reads our config drives: name, key, network, user data, files, vendor data."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.cloud_guest import CloudGuestMissing, build_cloud_guest
from virtflow.hypervisor.direct_io import supports_direct_io
from virtflow.hypervisor.disk_mapping import map_disks
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, VifSpec, build
from virtflow.metadata.config_drive import ConfigDriveWriter
from virtflow.metadata.drive_contents import DriveContents
from virtflow.metadata.instance_metadata import InjectedFile, InstanceMetadata
from virtflow.metadata.network_template import render_network
from virtflow.network.taps import Taps

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(900)]

FORMATS = ("iso9660", "vfat")
READY_SECONDS = 400
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5QGJLjXBJYgh9J0dHbU2rmKp0NnYVbdBzZpbRSLVh0 me@here"
USER_DATA = b"""\
#cloud-config
runcmd:
  - |
    {
      echo "CLOUD-HOSTNAME $(hostname)"
      echo "CLOUD-KEY $(cat /home/debian/.ssh/authorized_keys)"
      echo "CLOUD-ADDRESS $(ip -4 -o addr show scope global | tr -s ' \\n' ' ')"
      echo "CLOUD-ROUTE $(ip route show default)"
      echo "CLOUD-MTU $(cat /sys/class/net/e*/mtu)"
      echo "CLOUD-SOURCE $(cat /run/cloud-init/result.json /var/lib/cloud/instance/datasource | tr -d '\\n')"
      echo "CLOUD-FILE $(cat /etc/app.conf)"
      echo "CLOUD-VENDOR $(cat /etc/vendor-was-here)"
      echo "CLOUD-DONE"
    } >/dev/ttyS0
"""
VENDOR = {"cloud-init": "#cloud-config\nwrite_files:\n- path: /etc/vendor-was-here\n  content: indeed\n"}


@pytest.fixture(scope="module")
def debian() -> Path:
    try:
        return build_cloud_guest()
    except CloudGuestMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def bridge() -> Iterator[str]:
    name, owner = f"vfci{uuid.uuid4().hex[:6]}", "virtflow:cloud-init:test"
    taps = Taps()
    taps.ensure_bridge(name, owner, 1450)
    yield name
    for tap in taps.list():
        if tap.bridge == name and tap.owner:
            taps.unplug(tap.name, tap.owner)
    taps.remove_bridge_if_empty(name, owner)


@dataclass
class Guest:
    """One that is booting, with a config drive of this format."""

    number: int
    drive_format: str
    folder: Path
    bridge: str

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def name(self) -> str:
        return f"web-{self.drive_format}"

    @property
    def address(self) -> str:
        return f"10.97.0.{10 + self.number}"

    def told(self) -> Mapping[str, str]:
        """What it has written to its console, when it has written all."""
        deadline = time.monotonic() + READY_SECONDS
        while "CLOUD-DONE" not in (text := self.console.read_text(errors="replace")):
            assert time.monotonic() < deadline, f"cloud-init did not come to its end: {text[-1000:]!r}"
            time.sleep(0.5)
        lines = (line.strip().partition(" ") for line in text.splitlines())
        return {key: value for key, _, value in lines if key.startswith("CLOUD-")}


def vif(guest: Guest) -> Any:
    return {
        "port_id": f"port-{guest.number}",
        "network_id": "net",
        "mac": f"52:54:00:97:00:{10 + guest.number}",
        "tap": f"{guest.bridge}t{guest.number}",
        "mtu": 1450,
        "addresses": [
            {"address": guest.address, "cidr": "10.97.0.0/24", "gateway": "10.97.0.1", "dns": ["9.9.9.9"], "routes": []}
        ],
    }


def write_drive(guest: Guest) -> None:
    md = InstanceMetadata(
        uuid=str(uuid.uuid4()),
        name=guest.name,
        hostname=guest.name,
        project="demo",
        random_seed=bytes(512),
        public_keys={"key-0": KEY},
        user_data=USER_DATA,
        files=(InjectedFile("/etc/app.conf", b"key = value"),),
        vifs=[vif(guest)],
        vendor_data=VENDOR,
        network_config=render_network([vif(guest)]),
    )
    tree = DriveContents(vendor_data=VENDOR).tree(md)
    ConfigDriveWriter().write(tree, guest.folder / "disk.config", "op1", drive_format=guest.drive_format)


def domain(guest: Guest) -> DomainSpec:
    mapping = map_disks(machine="pc", config_drive=True, drive_format=guest.drive_format)
    cache = "none" if supports_direct_io(guest.folder) else "writeback"
    files = {"root": ("disk", "qcow2"), "config_drive": ("disk.config", "raw")}
    port = vif(guest)
    return DomainSpec(
        uuid=str(uuid.uuid4()),
        name=guest.name,
        operation="op1",
        host="host-a",
        virt_type="qemu",
        machine="pc",
        vcpus=1,
        memory_mib=384,
        console_log=str(guest.console),
        disks=tuple(
            DiskSpec(
                *(str(guest.folder / files[slot.role][0]), files[slot.role][1], slot.bus, slot.target, slot.device),
                cache=cache,
                readonly=slot.role == "config_drive",
            )
            for slot in mapping.slots()
        ),
        vifs=(VifSpec(port["mac"], port["tap"], mtu=1450),),
        tcg_cache_mib=64,
    )


@pytest.fixture(scope="module")
def guests(
    debian: Path, bridge: str, _session_hypervisor: Hypervisor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Guest]]:
    """One guest for each format, booting at the same time: half a minute each on an idle host."""
    hypervisor = _session_hypervisor
    booting = {}
    for number, drive_format in enumerate(FORMATS):
        folder = tmp_path_factory.mktemp(f"cloud-{drive_format}")
        guest = Guest(number, drive_format, folder, bridge)
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", debian, folder / "disk"]
        subprocess.run(overlay, check=True)
        write_drive(guest)
        Taps().plug(vif(guest)["tap"], bridge, 1450, f"virtflow:cloud-init:{number}")
        spec = domain(guest)
        hypervisor.define(build(spec))
        hypervisor.start(spec.uuid)
        booting[drive_format] = guest
    yield booting
    for each in hypervisor.domains():
        hypervisor.undefine(each.uuid)
        hypervisor.destroy(each.uuid)


@pytest.mark.parametrize("drive_format", FORMATS)
def test_cloud_init_does_all_that_the_config_drive_says(guests: dict[str, Guest], drive_format: str) -> None:
    guest = guests[drive_format]
    told = guest.told()
    assert told["CLOUD-HOSTNAME"] == guest.name
    assert told["CLOUD-KEY"] == KEY
    assert f"inet {guest.address}/24 " in told["CLOUD-ADDRESS"]
    assert told["CLOUD-ROUTE"].startswith("default via 10.97.0.1 ")
    assert told["CLOUD-MTU"] == "1450"
    assert told["CLOUD-FILE"] == "key = value"
    assert told["CLOUD-VENDOR"] == "indeed"
    device = "/dev/sr0" if drive_format == "iso9660" else "/dev/vdb"
    assert f"DataSourceConfigDrive [net,ver=2][source={device}]" in told["CLOUD-SOURCE"]
