from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.errors import HostLacks, InvalidRequest
from virtflow.hypervisor.disk_mapping import map_disks
from virtflow.hypervisor.domain_xml import DiskSpec, DomainSpec, VifSpec, build, validate
from virtflow.hypervisor.firmware import Firmware, find_uefi
from virtflow.hypervisor.hardware import (
    CDROM_BUSES,
    DISK_BUSES,
    RNG_MODELS,
    VIDEO_MODELS,
    VIF_MODELS,
    HardwareOptions,
    image_properties,
)

FULL = {
    "hw_machine_type": "pc-q35-7.2",
    "hw_disk_bus": "scsi",
    "hw_cdrom_bus": "sata",
    "hw_vif_model": "e1000",
    "hw_video_model": "virtio",
    "hw_rng_model": "virtio",
    "hw_qemu_guest_agent": "yes",
    "hw_firmware_type": "uefi",
    "os_command_line": "console=ttyS0 quiet",
}

CHOICES = sorted(FULL.keys() - {"os_command_line"})


def test_an_image_without_properties_leaves_everything_to_the_host() -> None:
    assert image_properties({}) == HardwareOptions()
    assert image_properties({"os_distro": "debian", "hw_vif_multiqueue_enabled": "true"}) == HardwareOptions()


def test_every_property_is_read() -> None:
    assert image_properties(FULL) == HardwareOptions(
        machine="pc-q35-7.2",
        disk_bus="scsi",
        cdrom_bus="sata",
        vif_model="e1000",
        video_model="virtio",
        rng_model="virtio",
        guest_agent=True,
        firmware="uefi",
        cmdline="console=ttyS0 quiet",
    )


def test_the_options_survive_being_stored() -> None:
    options = image_properties(FULL)
    assert HardwareOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize("machine", ["pc", "q35", "virt", "pc-i440fx-7.2", "pc-q35-8.0", "virt-7.2"])
def test_machines_of_qemu_are_known(machine: str) -> None:
    assert image_properties({"hw_machine_type": machine}).machine == machine


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in CHOICES for value in ("", "floppy", "VIRTIO ", "é", "x" * 99)),
        ("hw_machine_type", "pc,accel=kvm"),
        ("hw_machine_type", "../q35"),
        ("hw_cdrom_bus", "virtio"),
        ("os_command_line", "a\nb"),
        ("os_command_line", "a\x00b"),
        ("os_command_line", "a" * 2048),
        ("os_secure_boot", "required"),
        ("os_secure_boot", "maybe"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_honoured_is_refused_by_its_property(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        image_properties({name: value})
    assert str(caught.value).startswith(f"image property {name}: ")
    assert len(str(caught.value)) < 200


@given(st.dictionaries(st.sampled_from([*FULL, "os_secure_boot"]), st.text()))
def test_whatever_an_image_says_is_read_or_refused(properties: dict[str, str]) -> None:
    with suppress(InvalidRequest):
        options = image_properties(properties)
        validate(build(replace(SPEC, cmdline=options.cmdline, kernel="/boot/vmlinuz")))


@pytest.mark.parametrize("bus", DISK_BUSES)
@pytest.mark.parametrize("model", VIF_MODELS)
def test_every_bus_and_interface_model_makes_a_domain_that_libvirts_schema_knows(bus: str, model: str) -> None:
    slot = map_disks(machine="pc", bus=bus).root
    disk = DiskSpec("/d/disk", "qcow2", slot.bus, slot.target)
    validate(build(replace(SPEC, disks=(disk,), vifs=(VifSpec("52:54:00:11:22:33", "vf0123456789a", model=model),))))


@pytest.mark.parametrize("bus", CDROM_BUSES)
def test_every_bus_of_a_cdrom_makes_a_domain_that_libvirts_schema_knows(bus: str) -> None:
    slot = map_disks(machine="pc", config_drive=True, cdrom_bus=bus).config_drive
    assert slot is not None
    validate(build(replace(SPEC, disks=(DiskSpec("/d/disk.config", "raw", slot.bus, slot.target, slot.device),))))


@pytest.mark.parametrize("video", VIDEO_MODELS)
@pytest.mark.parametrize("rng", RNG_MODELS)
def test_every_video_and_rng_model_makes_a_domain_that_libvirts_schema_knows(video: str, rng: str) -> None:
    validate(build(replace(SPEC, video_model=video, rng_model=rng)))


SPEC = DomainSpec(
    uuid="6f1c1c52-5a0f-4a6e-9a5e-0c8f6f2f3a01",
    name="web-1",
    operation="op",
    host="host-a",
    virt_type="qemu",
    machine="pc",
    vcpus=1,
    memory_mib=64,
    console_log="/d/console.log",
)


def test_uefi_is_found_only_with_code_and_variables_of_one_build(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/OVMF"
    folder.mkdir(parents=True)
    for name in ("OVMF_CODE_4M.fd", "OVMF_CODE.fd", "OVMF_VARS.fd"):
        (folder / name).touch()
    assert find_uefi("x86_64", tmp_path) == Firmware("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd")


@pytest.mark.parametrize(
    ("arch", "remedy"),
    [("x86_64", "apt install ovmf"), ("aarch64", "apt install qemu-efi-aarch64"), ("s390x", "s390x")],
)
def test_a_host_without_uefi_says_what_brings_it(arch: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(HostLacks, match=rf"cannot boot with UEFI: its firmware not found; .*{remedy}"):
        find_uefi(arch, tmp_path)
