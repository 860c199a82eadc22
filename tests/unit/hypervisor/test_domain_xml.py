from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from virtflow.errors import HostStorageError, InvalidDomainXml, InvalidRequest
from virtflow.hypervisor.domain_xml import METADATA_NAMESPACE, DiskSpec, DomainSpec, UefiSpec, VifSpec, build, validate
from virtflow.hypervisor.volume_disks import volume_disk

FOLDER = "/var/lib/virtflow/instances/6f1c1c52-5a0f-4a6e-9a5e-0c8f6f2f3a01"
ROOT = DiskSpec(f"{FOLDER}/disk", "qcow2", "virtio", "vda")
SPEC = DomainSpec(
    uuid="6f1c1c52-5a0f-4a6e-9a5e-0c8f6f2f3a01",
    name="web-1",
    operation="0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d001",
    host="host-a",
    virt_type="qemu",
    machine="q35",
    vcpus=2,
    memory_mib=512,
    console_log=f"{FOLDER}/console.log",
    disks=(ROOT,),
)


def config_drive(bus: str, target: str) -> DiskSpec:
    return DiskSpec(f"{FOLDER}/disk.config", "raw", bus, target, device="cdrom")


FIRST = VifSpec("52:54:00:11:22:33", "vf0123456789a", mtu=1450)
SECOND = VifSpec("52:54:00:44:55:66", "vfba987654321", addresses=("10.0.0.5", "fd00::5"))

UEFI = UefiSpec("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", f"{FOLDER}/nvram.fd")

VOLUME = "3f0c1c52-5a0f-4a6e-9a5e-0c8f6f2f3b07"
ISCSI = {"kind": "iscsi", "path": "", "format": "raw", "address": "10.98.0.1", "port": 3260}
ISCSI |= {"target": f"iqn.2026-01.dev.virtflow:volume-{VOLUME}", "lun": 1}
NBD = {"kind": "nbd", "path": "", "format": "raw", "address": "fd00::1", "port": 10809, "target": "v", "lun": 0}
BLOCK = {"kind": "block", "path": "/dev/sdb", "format": "raw"}
LUKS = {"encryption": "luks"}


def with_volumes(*sources: dict[str, object]) -> DomainSpec:
    disks = [volume_disk(each, "virtio", f"vd{'bcdef'[number]}", VOLUME, "none") for number, each in enumerate(sources)]
    return replace(SPEC, disks=(ROOT, *disks))


CASES = {
    "volumes": with_volumes({**ISCSI, "user": "someone"}, {**ISCSI, "user": ""}, {**NBD, "user": ""}, BLOCK),
    "encrypted-volumes": with_volumes({**ISCSI, **LUKS, "user": "someone"}, {**BLOCK, **LUKS}),
    "q35": SPEC,
    "q35-hotplug-ports": replace(SPEC, vifs=(FIRST,), hotplug_ports=2),
    "pc": replace(SPEC, machine="pc"),
    "kvm": replace(SPEC, virt_type="kvm"),
    "kvm-pc-host-passthrough": replace(SPEC, virt_type="kvm", machine="pc", cpu_model="host-passthrough"),
    "aarch64": replace(SPEC, arch="aarch64", machine="virt"),
    "aarch64-model": replace(SPEC, arch="aarch64", machine="virt", cpu_model="cortex-a57"),
    "q35-config-drive": replace(SPEC, disks=(ROOT, config_drive("scsi", "sda"))),
    "q35-config-drive-sata": replace(SPEC, disks=(ROOT, config_drive("sata", "sda"))),
    "pc-config-drive": replace(SPEC, machine="pc", disks=(ROOT, config_drive("ide", "hda"))),
    "usb-disk": replace(SPEC, disks=(replace(ROOT, bus="usb", target="sda"),)),
    "one-vif": replace(SPEC, vifs=(FIRST,)),
    "one-vif-filtered": replace(SPEC, vifs=(replace(FIRST, filter="virtflow-vf0123456789a"),)),
    "two-vifs": replace(SPEC, vifs=(FIRST, SECOND)),
    "two-vifs-filtered": replace(
        SPEC, vifs=(replace(FIRST, filter="clean-traffic", addresses=("10.0.0.4",)), replace(SECOND, filter="mine"))
    ),
    "kernel": replace(
        SPEC, disks=(), kernel="/boot/vmlinuz", initrd="/boot/initrd", cmdline='console=ttyS0 a="<b>&\'"'
    ),
    "kernel-alone": replace(SPEC, kernel="/boot/vmlinuz"),
    "vnc": replace(SPEC, vnc=True),
    "agent": replace(SPEC, guest_agent=True),
    "small": replace(SPEC, disks=(), vcpus=1, memory_mib=64, memballoon=False, tcg_cache_mib=32),
    "disk-options": replace(
        SPEC, disks=(replace(ROOT, cache="writeback", serial="root-1"), replace(ROOT, target="vdb", readonly=True))
    ),
    "uefi": replace(SPEC, uefi=UEFI),
    "uefi-aarch64": replace(
        SPEC, arch="aarch64", machine="virt", uefi=replace(UEFI, code="/usr/share/AAVMF/AAVMF_CODE.fd")
    ),
    "uefi-kernel": replace(SPEC, uefi=UEFI, kernel="/boot/vmlinuz", cmdline="console=ttyS0"),
    "video-without-vnc": replace(SPEC, video_model="virtio"),
    "vnc-pc-cirrus": replace(SPEC, machine="pc", vnc=True, video_model="cirrus"),
    "vnc-no-video": replace(SPEC, vnc=True, video_model="none"),
    "rng": replace(SPEC, rng_model="virtio-non-transitional"),
    "everything": replace(
        SPEC,
        title="all of it",
        uefi=UEFI,
        cpu_model="maximum",
        vnc=True,
        video_model="virtio",
        guest_agent=True,
        disks=(
            replace(ROOT, bus="scsi", target="sda"),
            replace(ROOT, path=f"{FOLDER}/disk.eph0", bus="scsi", target="sdb"),
            replace(ROOT, path=f"{FOLDER}/disk.swap", bus="scsi", target="sdc"),
            config_drive("sata", "sdd"),
        ),
        vifs=(replace(FIRST, model="e1000e", filter="virtflow-vf0123456789a", addresses=("10.0.0.4",)), SECOND),
    ),
    "pc-ide-e1000": replace(
        SPEC,
        machine="pc",
        disks=(replace(ROOT, bus="ide", target="hda"), config_drive("ide", "hdb")),
        vifs=(replace(FIRST, model="e1000"),),
    ),
    "emulator": replace(SPEC, emulator="/usr/bin/qemu-system-x86_64"),
    "title": replace(SPEC, title="</title><disk source='/etc/shadow'/> & \"é\" \U0001f600"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_domain_is_built_as_its_golden_file_and_matches_libvirts_schema(
    case: str, same_as_golden: Callable[[str, str], None]
) -> None:
    xml = build(CASES[case])
    validate(xml)
    same_as_golden(f"{case}.xml", xml)


def test_qemu_is_told_for_how_long_to_wait_for_an_nbd_server_and_to_halt_the_guest_then() -> None:
    # libvirt's formatdomain, "reconnect" of disk type network: the schema knows its delay since 9.2
    root = etree.fromstring(build(with_volumes({**NBD, "user": "", "reconnect": 30}, {**ISCSI, "user": ""})))
    waits = {disk.find("target").get("dev"): disk.find("source/reconnect") for disk in root.iterfind("devices/disk")}  # type: ignore[union-attr]
    assert {target: dict(each.attrib) for target, each in waits.items() if each is not None} == {"vdb": {"delay": "30"}}
    halts = {driver.get("error_policy") for driver in root.iterfind("devices/disk/driver")}
    assert halts == {None, "stop"}


def test_the_same_spec_makes_the_same_text() -> None:
    assert build(CASES["two-vifs-filtered"]) == build(CASES["two-vifs-filtered"])


def test_a_machine_without_pci_express_has_slots_enough() -> None:
    assert build(replace(SPEC, machine="pc", hotplug_ports=8)) == build(replace(SPEC, machine="pc"))


def test_no_golden_file_is_left_over_from_a_case_that_is_gone() -> None:
    assert {path.stem for path in (Path(__file__).parent / "golden").glob("*.xml")} == set(CASES)


def test_a_title_full_of_markup_stays_text() -> None:
    root = etree.fromstring(build(CASES["title"]))
    assert root.findtext("title") == CASES["title"].title
    assert root.find("disk") is None
    assert len(root.findall("devices/disk")) == 1


def test_the_domain_carries_its_operation_and_host_as_attributes_that_cannot_break_out() -> None:
    root = etree.fromstring(build(replace(SPEC, operation='a"b<c', host="'><x/>")))
    ours = root.find(f"metadata/{{{METADATA_NAMESPACE}}}instance")
    assert ours is not None
    assert dict(ours.attrib) == {"operation": 'a"b<c', "host": "'><x/>"}


@pytest.mark.parametrize(
    "bad", ["\x00", "\x0b", "\x1b[31m", "\ud800", "\ufffe", "\uffff", "\n", "\t", "\x85", "\u2028"]
)
@pytest.mark.parametrize("field", ["title", "operation", "host", "cmdline", "console_log", "kernel"])
def test_text_that_xml_or_libvirt_cannot_carry_is_refused_by_field(field: str, bad: str) -> None:
    spec = replace(SPEC, kernel="/boot/vmlinuz")
    with pytest.raises(InvalidRequest, match=rf"^{field}: ") as caught:
        build(replace(spec, **{field: f"/a{bad}b"}))
    assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".", "-rf", "a b", "a\n", "é", "a" * 64, "</name>", "vm;rm", "a\x00", "$(x)"]
)
def test_a_name_that_is_not_plainly_safe_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^name: "):
        build(replace(SPEC, name=name))


def test_a_path_that_is_not_absolute_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^disk path: must be an absolute path"):
        build(replace(SPEC, disks=(replace(ROOT, path="disk"),)))


def test_a_serial_that_could_not_stand_in_the_schema_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^disk serial: "):
        build(replace(SPEC, disks=(replace(ROOT, serial="a/b"),)))


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^address: "):
        build(replace(SPEC, vifs=(replace(FIRST, filter="f", addresses=("10.0.0.999",)),)))


def test_a_value_outside_the_schema_is_reported_with_its_place() -> None:
    with pytest.raises(InvalidDomainXml) as caught:
        validate(build(replace(SPEC, disks=(replace(ROOT, cache="sometimes"),))))
    assert caught.value.element.startswith("/domain")


def test_an_unknown_element_is_reported_by_name() -> None:
    with pytest.raises(InvalidDomainXml, match="vcpux"):
        validate(build(SPEC).replace("vcpu>", "vcpux>"))


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "no xml",
        "<domain>",
        '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><domain><name>&e;</name></domain>',
        '<!DOCTYPE d SYSTEM "http://192.0.2.1/x.dtd"><domain/>',
        "<domain>" + " " * (1 << 20) + "</domain>",
        "<domain>\ud800</domain>",
    ],
)
def test_what_is_broken_or_has_a_doctype_is_refused_before_the_schema(xml: str) -> None:
    with pytest.raises(InvalidDomainXml):
        validate(xml)


def test_a_missing_schema_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostStorageError, match=r"cannot read libvirt's schema .*domain\.rng"):
        validate(build(SPEC), str(tmp_path))
