"""The domain XML in front of those who read it: libvirt defines every shape, and a guest sees what it was given."""

from __future__ import annotations

import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.processes import wait_until
from virtflow.errors import HostLacks
from virtflow.hypervisor.direct_io import supports_direct_io
from virtflow.hypervisor.disk_mapping import DiskMapping, map_disks
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, UefiSpec, build, validate
from virtflow.hypervisor.firmware import find_uefi
from virtflow.metadata.config_drive import ConfigDriveWriter
from virtflow.testing.guest import GuestImage

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

READY_SECONDS = 90
USER_DATA = b"#!/bin/sh\necho given\n"
TREE = {
    "openstack/latest/meta_data.json": b'{"name": "web-1"}',
    "openstack/latest/user_data": USER_DATA,
}


@pytest.fixture
def folder(tmp_path: Path, guest_image: GuestImage) -> Path:
    """An instance's directory with an overlay of 48 MiB on the guest's disk, and a config drive."""
    subprocess.run(
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            guest_image.disk_qcow2,
            tmp_path / "disk",
            "48M",
        ],
        check=True,
    )
    ConfigDriveWriter(None).write(TREE, tmp_path / "disk.config", "op1")
    return tmp_path


def disks_of(mapping: DiskMapping, folder: Path) -> tuple[DiskSpec, ...]:
    cache = "none" if supports_direct_io(folder) else "writeback"
    files = {"root": ("disk", "qcow2"), "config_drive": ("disk.config", "raw")}
    return tuple(
        DiskSpec(str(folder / files[slot.role][0]), files[slot.role][1], slot.bus, slot.target, slot.device, cache)
        for slot in mapping.slots()
    )


def spec_of(folder: Path, machine: str, **mapping: object) -> DomainSpec:
    return DomainSpec(
        uuid=str(uuid.uuid4()),
        name="web-1",
        title="</title> & <b>",
        operation="op1",
        host="host-a",
        virt_type="qemu",
        machine=machine,
        vcpus=1,
        memory_mib=128,
        console_log=str(folder / "console.log"),
        disks=disks_of(map_disks(machine=machine, **mapping), folder),  # type: ignore[arg-type]
        tcg_cache_mib=32,
    )


def boot(hypervisor: Hypervisor, spec: DomainSpec) -> str:
    """What the guest has written to its console when it says that it is ready."""
    xml = build(spec)
    validate(xml)
    hypervisor.define(xml)
    hypervisor.start(spec.uuid)
    hypervisor.wait_running(spec.uuid)
    console = Path(spec.console_log)
    ready = wait_until(lambda: "PARTS" in console.read_text(errors="replace"), READY_SECONDS, 0.1)
    text = console.read_text(errors="replace")
    assert ready, f"the guest did not come up: {text[-500:]!r}"
    return text


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_guest_boots_from_its_disk_and_reads_its_config_drive(
    machine: str, hypervisor: Hypervisor, folder: Path
) -> None:
    console = boot(hypervisor, spec_of(folder, machine, config_drive=True))
    assert "GUEST-READY" in console
    assert 'CONFIG-DRIVE /dev/sr0 iso9660 {"name": "web-1"}' in console
    assert "echo given" in console
    assert f"vda={48 * 1024} " in console


def test_a_guest_boots_a_kernel_directly_with_its_command_line(
    hypervisor: Hypervisor, folder: Path, guest_image: GuestImage
) -> None:
    spec = replace(
        spec_of(folder, "q35"),
        disks=(),
        kernel=str(guest_image.kernel),
        initrd=str(guest_image.initrd),
        cmdline="console=ttyS0 quiet no_timer_check",
    )
    hypervisor.define(build(spec))
    hypervisor.start(spec.uuid)
    console = Path(spec.console_log)
    assert wait_until(lambda: "GUEST-READY" in console.read_text(errors="replace"), READY_SECONDS, 0.1)


def test_the_console_log_of_an_earlier_boot_is_kept(hypervisor: Hypervisor, folder: Path) -> None:
    spec = replace(spec_of(folder, "q35"), disks=())
    console = Path(spec.console_log)
    console.write_text("what was said before\n")
    hypervisor.define(build(spec))
    hypervisor.start(spec.uuid)
    assert console.read_text(errors="replace").startswith("what was said before\n")


@pytest.mark.parametrize("bus", ["virtio", "scsi", "sata", "usb"])
def test_a_disk_on_every_bus_of_q35_starts(bus: str, hypervisor: Hypervisor, folder: Path) -> None:
    spec = spec_of(folder, "q35", bus=bus, config_drive=True)
    hypervisor.define(build(spec))
    hypervisor.start(spec.uuid)
    hypervisor.wait_running(spec.uuid)


@pytest.mark.parametrize(
    "options",
    [
        {"vnc": True},
        {"memballoon": False},
        {"vcpus": 2},
        {"cpu_model": "maximum"},
        {"machine": "pc", "vnc": True},
        {"machine": "pc-q35-7.2", "vnc": True, "video_model": "virtio"},
        {"video_model": "cirrus"},
        {"vnc": True, "video_model": "none"},
        {"rng_model": "virtio-non-transitional"},
        {"guest_agent": True},
    ],
    ids=str,
)
def test_a_guest_with_options_starts(options: dict[str, object], hypervisor: Hypervisor, folder: Path) -> None:
    spec = replace(spec_of(folder, "q35"), disks=(), **options)  # type: ignore[arg-type]
    xml = build(spec)
    validate(xml)
    hypervisor.define(xml)
    hypervisor.start(spec.uuid)
    hypervisor.wait_running(spec.uuid)


def test_a_guest_with_uefi_has_variables_of_its_own_which_go_with_its_definition(
    hypervisor: Hypervisor, folder: Path
) -> None:
    try:
        firmware = find_uefi("x86_64")
    except HostLacks as error:
        pytest.skip(str(error))
    nvram = folder / "nvram.fd"
    spec = replace(
        spec_of(folder, "q35"),
        disks=(),
        uefi=UefiSpec(firmware.code, firmware.variables, str(nvram)),
    )
    xml = build(spec)
    validate(xml)
    hypervisor.define(xml)
    hypervisor.start(spec.uuid)
    assert nvram.stat().st_size == Path(firmware.variables).stat().st_size
    console = Path(spec.console_log)
    # The boot device selection of EDK II tells the serial port what it tries to boot.
    assert wait_until(lambda: "BdsDxe" in console.read_text(errors="replace"), READY_SECONDS, 0.1)
    hypervisor.destroy(spec.uuid)
    assert nvram.exists(), "they outlive a stop"
    hypervisor.undefine(spec.uuid)
    assert not nvram.exists()


def test_what_libvirt_hands_back_matches_the_schema_and_can_be_defined_again(
    hypervisor: Hypervisor, folder: Path
) -> None:
    spec = spec_of(folder, "q35", config_drive=True)
    hypervisor.define(build(spec))
    handed_back = hypervisor.domain_xml(spec.uuid)
    assert handed_back is not None
    validate(handed_back)
    hypervisor.undefine(spec.uuid)
    hypervisor.define(handed_back)
    assert [domain.operation for domain in hypervisor.domains()] == ["op1"]
