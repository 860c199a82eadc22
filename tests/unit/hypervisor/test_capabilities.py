from __future__ import annotations

from dataclasses import replace

import pytest

from virtflow.errors import InvalidDomainXml
from virtflow.hypervisor.capabilities import HostCapabilities, dotted, host_capabilities

GUEST = """
<guest><os_type>hvm</os_type><arch name='{arch}'><emulator>/usr/bin/qemu-system-{arch}</emulator>
{machines}{types}</arch></guest>"""


def capabilities(*guests: str, arch: str = "x86_64") -> HostCapabilities:
    xml = f"<capabilities><host><cpu><arch>{arch}</arch></cpu></host>{''.join(guests)}</capabilities>"
    return host_capabilities(xml, has_nwfilter=True, libvirt_version=9_000_000, qemu_version=7_002_022)


def guest(arch: str, machines: tuple[str, ...], types: tuple[str, ...]) -> str:
    return GUEST.format(
        arch=arch,
        machines="".join(f"<machine>{machine}</machine>" for machine in machines),
        types="".join(f"<domain type='{kind}'/>" for kind in types),
    )


def test_the_hosts_own_architecture_is_chosen_among_all_emulators() -> None:
    found = capabilities(
        guest("i686", ("pc",), ("qemu",)), guest("x86_64", ("pc", "pc-q35-7.2", "q35"), ("qemu", "kvm"))
    )
    assert found == HostCapabilities(
        *("x86_64", ("kvm", "qemu"), "/usr/bin/qemu-system-x86_64", "q35", True, "9.0.0", "7.2.22"),
        machines=("pc", "pc-q35-7.2", "q35"),
    )


def test_a_host_without_kvm_offers_qemu_alone() -> None:
    assert capabilities(guest("x86_64", ("pc",), ("qemu",))).virt_types == ("qemu",)


def test_arm_prefers_its_virt_machine() -> None:
    found = capabilities(guest("aarch64", ("borzoi", "virt"), ("qemu",)), arch="aarch64")
    assert (found.arch, found.machine) == ("aarch64", "virt")


def test_a_host_without_qemu_offers_nothing() -> None:
    found = capabilities(guest("s390x", ("s390",), ("qemu",)))
    assert (found.virt_types, found.emulator, found.machine) == ((), None, None)


def test_broken_capabilities_are_an_error() -> None:
    with pytest.raises(InvalidDomainXml):
        host_capabilities("<capabilities>", has_nwfilter=False, libvirt_version=0, qemu_version=0)


@pytest.mark.parametrize(("version", "known"), [("9.0.0", False), ("9.1.9", False), ("9.2.0", True), ("10.0.0", True)])
def test_it_is_known_whether_libvirt_lets_a_guest_wait_for_an_nbd_server(version: str, known: bool) -> None:
    assert replace(capabilities(), libvirt_version=version).nbd_reconnects is known


def test_versions_read_as_people_write_them() -> None:
    assert dotted(12_008_001) == "12.8.1"
