from __future__ import annotations

import pytest

from virtflow.errors import InvalidRequest
from virtflow.hypervisor.disk_mapping import DiskSlot, default_bus, default_cdrom_bus, map_disks, target_name


def test_a_lone_root_disk_is_the_first_virtio_disk() -> None:
    assert map_disks(machine="q35").slots() == (DiskSlot("root", "virtio", "vda"),)


@pytest.mark.parametrize(
    ("machine", "bus", "target"), [("pc", "ide", "hda"), ("pc-i440fx-7.2", "ide", "hda"), ("q35", "scsi", "sda")]
)
def test_the_config_drive_is_a_cdrom_on_a_bus_that_the_machine_has(machine: str, bus: str, target: str) -> None:
    drive = map_disks(machine=machine, config_drive=True).config_drive
    assert drive == DiskSlot("config_drive", bus, target, "cdrom")


def test_disks_stand_in_the_order_root_ephemerals_swap_volumes_config_drive() -> None:
    mapping = map_disks(machine="pc", config_drive=True, ephemeral=2, swap=True, volumes=[None, None])
    assert [(slot.role, slot.target) for slot in mapping.slots()] == [
        ("root", "vda"),
        ("ephemeral", "vdb"),
        ("ephemeral", "vdc"),
        ("swap", "vdd"),
        ("volume", "vde"),
        ("volume", "vdf"),
        ("config_drive", "hda"),
    ]


def test_buses_that_share_a_prefix_never_share_a_target() -> None:
    mapping = map_disks(machine="q35", bus="scsi", config_drive=True, cdrom_bus="sata", volumes=[None])
    assert [slot.target for slot in mapping.slots()] == ["sda", "sdb", "sdc"]


@pytest.mark.parametrize(("index", "name"), [(0, "vda"), (25, "vdz"), (26, "vdaa"), (701, "vdzz"), (702, "vdaaa")])
def test_targets_count_like_the_kernel(index: int, name: str) -> None:
    assert target_name("vd", index) == name


def test_every_target_is_unique_beyond_the_alphabet() -> None:
    targets = [slot.target for slot in map_disks(machine="q35", volumes=[None] * 60).slots()]
    assert len(set(targets)) == 61
    assert targets[-1] == "vdbi"


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("disk_bus", {"machine": "pc", "bus": "floppy"}),
        ("disk_bus", {"machine": "q35", "bus": "ide"}),
        ("disk_bus", {"machine": "pc", "bus": "ide", "volumes": [None] * 4}),
        ("cdrom_bus", {"machine": "q35", "config_drive": True, "cdrom_bus": "ide"}),
        ("cdrom_bus", {"machine": "q35", "config_drive": True, "cdrom_bus": "virtio"}),
        ("cdrom_bus", {"machine": "pc", "bus": "ide", "volumes": [None] * 3, "config_drive": True}),
    ],
)
def test_a_bus_that_the_machine_lacks_or_that_is_full_is_refused(field: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        map_disks(**arguments)


def test_only_the_old_pc_has_ide() -> None:
    assert [default_cdrom_bus(machine) for machine in ("pc", "q35", "pc-q35-7.2", "virt")] == [
        "ide",
        "scsi",
        "scsi",
        "scsi",
    ]


# -- files, buses by virt type ----------------------------------------------------------------------------------------


def test_letters_follow_from_which_disks_there_are() -> None:
    """Swap is vdb without an ephemeral disk, vdc with one."""
    assert {name: slot.target for name, slot in map_disks(machine="q35", swap=True).by_file().items()} == {
        "disk": "vda",
        "disk.swap": "vdb",
    }
    mapping = map_disks(machine="pc", ephemeral=3, swap=True, config_drive=True)
    assert {name: slot.target for name, slot in mapping.by_file().items()} == {
        "disk": "vda",
        "disk.local": "vdb",
        "disk.eph0": "vdc",
        "disk.eph1": "vdd",
        "disk.swap": "vde",
        "disk.config": "hda",
    }


def test_the_files_of_a_rescue_have_its_suffix_and_the_same_letters() -> None:
    mapping = map_disks(machine="pc", ephemeral=1, swap=True, config_drive=True)
    plain, rescue = mapping.by_file(), mapping.by_file(".rescue")
    assert rescue == {f"{name}.rescue": slot for name, slot in plain.items()}


@pytest.mark.parametrize(
    ("virt_type", "device", "machine", "bus"),
    [
        ("kvm", "disk", "pc", "virtio"),
        ("qemu", "disk", "q35", "virtio"),
        ("kvm", "cdrom", "pc", "ide"),
        ("qemu", "cdrom", "pc", "ide"),
        ("kvm", "cdrom", "q35", "scsi"),
    ],
)
def test_the_bus_follows_from_virt_type_device_and_machine(virt_type: str, device: str, machine: str, bus: str) -> None:
    assert default_bus(virt_type, device, machine) == bus


def test_a_virt_type_that_is_not_run_here_has_no_buses() -> None:
    with pytest.raises(InvalidRequest, match=r"^virt_type: 'xen' is neither qemu nor kvm"):
        default_bus("xen", "disk", "pc")


def test_a_volume_keeps_its_target_and_a_disk_that_is_new_gets_another() -> None:
    mapping = map_disks(machine="q35", ephemeral=1, swap=True, volumes=["vdc", None])
    assert [slot.target for slot in mapping.slots()] == ["vda", "vdb", "vdd", "vdc", "vde"]
    mapping = map_disks(machine="q35", bus="scsi", volumes=["sdb", "vdb"])
    assert [(slot.bus, slot.target) for slot in mapping.slots()] == [
        ("scsi", "sda"),
        ("scsi", "sdb"),
        ("virtio", "vdb"),
    ]
