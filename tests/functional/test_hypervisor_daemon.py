"""The hypervisor driver on a real libvirtd: a daemon that goes away, and filters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.hosts import LabHost
from virtflow.errors import HypervisorUnreachable, NetworkError
from virtflow.hypervisor.domain_xml import DomainSpec, VifSpec, build
from virtflow.network.filters import build_filter, filter_name
from virtflow.network.taps import Taps

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(120)]

TAP = "vf0a1b2c3d4e5"
MAC = "52:54:00:0a:0b:0c"


@pytest.fixture
def host(lab_hosts: tuple[LabHost, ...]) -> LabHost:
    return lab_hosts[0]


@pytest.fixture
def on_host(host: LabHost) -> Iterator[Hypervisor]:
    from virtflow.hypervisor.hypervisor import Hypervisor

    hypervisor = Hypervisor(host.local_uri)
    yield hypervisor
    for domain in hypervisor.domains():
        hypervisor.undefine(domain.uuid)
        hypervisor.destroy(domain.uuid)
    hypervisor.undefine_filter(filter_name(TAP))
    hypervisor.close()


@pytest.fixture
def spec(tmp_path: Path) -> DomainSpec:
    return DomainSpec(
        uuid=str(uuid.uuid4()),
        name="web-1",
        operation="op1",
        host="host-a",
        virt_type="qemu",
        machine="q35",
        vcpus=1,
        memory_mib=32,
        console_log=str(tmp_path / "console.log"),
        tcg_cache_mib=8,
    )


def test_a_daemon_that_was_started_again_is_found_again_with_its_guests(
    host: LabHost, on_host: Hypervisor, spec: DomainSpec
) -> None:
    on_host.define(build(spec))
    on_host.start(spec.uuid)
    host.stop_libvirtd()
    host.start()
    assert on_host.state(spec.uuid) == "running"
    on_host.start(spec.uuid)
    on_host.destroy(spec.uuid)
    assert on_host.state(spec.uuid) == "shutoff"


def test_a_daemon_that_is_gone_is_reported_until_it_is_back(host: LabHost, on_host: Hypervisor) -> None:
    assert on_host.domains() == []
    host.stop_libvirtd()
    try:
        for _ in range(2):
            with pytest.raises(HypervisorUnreachable, match=r"^cannot reach libvirt at qemu\+unix:.*[^\n]+$"):
                on_host.domains()
    finally:
        host.start()
    assert on_host.domains() == []


def test_a_filter_is_defined_used_and_undefined_and_each_may_be_repeated(
    host: LabHost, on_host: Hypervisor, spec: DomainSpec
) -> None:
    assert on_host.capabilities().has_nwfilter
    assert "clean-traffic" in on_host.filters()
    for _ in range(2):
        on_host.define_filter(build_filter(TAP, MAC, ["10.99.0.50"]))
        assert filter_name(TAP) in on_host.filters()
    host.call(lambda: Taps().ensure_bridge("vfbr-test", "virtflow:op1:bridge", 1500))
    host.call(lambda: Taps().plug(TAP, "vfbr-test", 1500, "virtflow:op1:port"))
    try:
        on_host.define(build(replace(spec, vifs=(VifSpec(MAC, TAP, filter=filter_name(TAP)),))))
        on_host.start(spec.uuid)
        with pytest.raises(NetworkError, match=r"^cannot undefine filter virtflow-vf0a1b2c3d4e5: .*in use"):
            on_host.undefine_filter(filter_name(TAP))
        on_host.destroy(spec.uuid)
    finally:
        host.call(lambda: Taps().unplug(TAP, "virtflow:op1:port"))
        host.call(lambda: Taps().remove_bridge_if_empty("vfbr-test", "virtflow:op1:bridge"))
    for _ in range(2):
        on_host.undefine_filter(filter_name(TAP))
        assert filter_name(TAP) not in on_host.filters()
