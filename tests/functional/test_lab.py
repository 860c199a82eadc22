"""The lab itself: hosts come up, run real guests, and leave nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab import hosts as lab_of_hosts
from tests.lab.hosts import GUEST_BRIDGE, Lab, LabHost, namespaces
from tests.lab.postgres import Postgres
from tests.lab.processes import alive, wait_until
from virtflow.testing.guest import GuestImage

libvirt = pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

READY_SECONDS = 90
ADDRESS = "10.99.0.50"
MAC = "52:54:00:0a:0b:0c"

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>
  <devices>
    <serial type='file'><source path='{console}'/></serial>
    <interface type='bridge'>
      <source bridge='{bridge}'/><mac address='{mac}'/><model type='virtio'/>
      {filter}
    </interface>
    {disk}
  </devices>
</domain>
"""
FILTER = "<filterref filter='clean-traffic'><parameter name='IP' value='{address}'/></filterref>"


def from_disk(disk: Path) -> dict[str, str]:
    source = f"<driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/>"
    return {"boot": "<boot dev='hd'/>", "disk": f"<disk type='file' device='disk'>{source}</disk>"}


def from_kernel(guest: GuestImage, arguments: str) -> dict[str, str]:
    command_line = f"<cmdline>console=ttyS0 quiet no_timer_check {arguments}</cmdline>"
    return {"boot": f"<kernel>{guest.kernel}</kernel><initrd>{guest.initrd}</initrd>{command_line}", "disk": ""}


@contextmanager
def guest_on(host: LabHost, uri: str, console: Path, parts: dict[str, str], **values: str) -> Iterator[Any]:
    """A transient guest that is up; over ``uri`` from inside the host's network."""
    values = {
        "name": "guest",
        "bridge": GUEST_BRIDGE,
        "mac": MAC,
        "filter": "",
        "console": str(console),
        **parts,
        **values,
    }
    connection = host.call(lambda: libvirt.open(uri))
    try:
        domain = connection.createXML(DOMAIN.format(**values))
        try:
            assert wait_until(lambda: "GUEST-READY" in _read(console), READY_SECONDS, 0.1), _read(console)
            yield domain
        finally:
            if connection.listAllDomains():
                domain.destroy()
    finally:
        connection.close()


def _read(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""


def ping(host: LabHost, address: str) -> bool:
    """Whether the guest answers, seen from the host's network: ARP is enough, so no ping program is needed."""
    host.network.ip("neigh", "flush", "dev", GUEST_BRIDGE)
    poke = f"exec 3<>/dev/udp/{address}/9; echo x >&3"

    def answered() -> bool:
        subprocess.run(host.argv(["bash", "-c", poke]), check=False, capture_output=True)
        return MAC in host.network.ip("neigh", "show", address)

    return wait_until(answered, 4, 0.3)


def test_a_guest_boots_from_its_disk_on_a_host_reached_over_tcp(
    lab_hosts: tuple[LabHost, ...], guest_image: GuestImage, short_tmp_path: Path
) -> None:
    disk = short_tmp_path / "disk.qcow2"
    shutil.copyfile(guest_image.disk_qcow2, disk)
    console = short_tmp_path / "console"
    host = lab_hosts[0]
    with guest_on(host, host.uri, console, from_disk(disk)) as domain:
        assert f"NIC eth0 {MAC}" in _read(console)
        domain.shutdown()
        assert wait_until(lambda: not domain.connect().listAllDomains(), 20), "the guest does not hear the power button"
        assert "GUEST-POWEROFF" in _read(console)


def test_hosts_are_different_machines_that_see_each_other(lab: Lab) -> None:
    names = set()
    for host in lab.hosts:
        connection = lab.call(lambda uri=host.uri: libvirt.open(uri))
        names.add(connection.getHostname())
        connection.close()
    assert names == {host.name for host in lab.hosts}
    one, two = lab.hosts
    local = two.call(lambda: libvirt.open(one.uri))
    assert local.getHostname() == one.name
    local.close()


@pytest.mark.parametrize(("claimed", "heard"), [(ADDRESS, True), ("10.99.0.66", False)], ids=["own", "spoofed"])
def test_a_filtered_guest_is_heard_under_its_own_address_only(
    lab_hosts: tuple[LabHost, ...], guest_image: GuestImage, short_tmp_path: Path, claimed: str, heard: bool
) -> None:
    """libvirt's own nwfilter rules take effect in a lab host, so tests may rely on them there."""
    host = lab_hosts[1]
    parts = from_kernel(guest_image, f"labip={claimed}/24")
    console = short_tmp_path / "console"
    with guest_on(host, host.local_uri, console, parts, filter=FILTER.format(address=ADDRESS)):
        assert ping(host, claimed) is heard


def test_a_lab_leaves_no_process_namespace_or_mount_behind_though_a_guest_still_runs(guest_image: GuestImage) -> None:
    if reason := lab_of_hosts.missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="vflab-"))
    with Lab.up(root, hosts=1) as lab:
        (host,) = lab.hosts
        connection = libvirt.open(host.local_uri)
        values = {"name": "left", "bridge": GUEST_BRIDGE, "mac": MAC, "filter": "", "console": str(root / "console")}
        connection.createXML(DOMAIN.format(**values, **from_kernel(guest_image, "")))
        connection.close()
        pids = host.network.pids()
        assert len(pids) >= 2, "libvirtd and the guest"
        made = {lab.switch.name, host.network.name}
        assert made <= namespaces()
    assert not [pid for pid in pids if alive(pid)]
    assert not made & namespaces()
    mounts = Path("/proc/self/mountinfo").read_text()
    assert lab.run not in mounts
    assert root.name not in mounts
    assert not root.exists()


def test_databases_are_apart_from_each_other(postgres_server: Postgres) -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg")
    one, two = postgres_server.create_database(), postgres_server.create_database()
    plain = [url.replace("postgresql+psycopg", "postgresql") for url in (one, two)]
    with psycopg.connect(plain[0]) as connection:
        connection.execute("CREATE TABLE t (x int)")
    with psycopg.connect(plain[1]) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
    for url in (one, two):
        postgres_server.drop_database(url)
