"""Guests on a real libvirtd, which has packet filters: they come and go with the ports."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from lxml import etree

from tests.functional.nodes import make_network, small
from virtflow import DeleteRequest, Runner, faults
from virtflow.config import load
from virtflow.engine.audit import audit_of
from virtflow.errors import OperationFailed
from virtflow.network.filters import filter_name
from virtflow.testing.residue import Residue

if TYPE_CHECKING:
    from tests.lab.hosts import LabHost

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

T = TypeVar("T")


class OnLabHost:
    """A runner whose taps, bridges and guests are those of a lab host: every call is made in its network."""

    def __init__(self, host: LabHost, runner: Runner) -> None:
        self.host = host
        self.runner = runner

    def __call__(self, function: Callable[[], T]) -> T:
        return self.host.call(function)

    def residue(self) -> Residue:
        return self(lambda: Residue.around(self.runner))

    def filters(self) -> set[str]:
        return {name for name in self.runner.services["hypervisor"].filters() if name.startswith("virtflow-")}

    def tap(self) -> str:
        (port,) = self.runner.services["networks"].ports()
        return str(port.tap)


@pytest.fixture
def on_host(lab_hosts: tuple[LabHost, ...], catalog: Path) -> Iterator[OnLabHost]:
    host = lab_hosts[0]
    state = Path(tempfile.mkdtemp(prefix="vfl-"))
    settings = {
        "state_dir": str(state),
        "libvirt.uri": host.local_uri,
        "libvirt.virt_type": "qemu",
        "images.catalog": str(catalog),
        "engine.revert_backoff": "0.05",
    }
    runner = host.call(lambda: Runner(load(overrides=settings, env={})))
    on_host = OnLabHost(host, runner)
    try:
        runner.services["networks"].create(make_network())
        yield on_host
    finally:
        take_away(on_host)
        runner.close()
        shutil.rmtree(state)


def take_away(on_host: OnLabHost) -> None:
    """What a test that failed has left on the host, which others use after us."""
    hypervisor, taps = on_host.runner.services["hypervisor"], on_host.runner.services["taps"]
    for domain in hypervisor.domains():
        hypervisor.undefine(domain.uuid)
        hypervisor.destroy(domain.uuid)
    for name in on_host.filters():
        hypervisor.undefine_filter(name)
    for network in on_host.runner.services["networks"].list():
        for link in (*(tap.name for tap in on_host(taps.list) if tap.bridge == network.bridge), network.bridge):
            subprocess.run(on_host.host.argv(["ip", "link", "delete", link]), check=False, capture_output=True)


def test_a_port_has_its_filter_for_as_long_as_it_lives(on_host: OnLabHost) -> None:
    before, hypervisor = on_host.residue(), on_host.runner.services["hypervisor"]
    spawn = on_host(lambda: on_host.runner.run(small("web1")))
    name = filter_name(on_host.tap())
    assert on_host.filters() == {name}
    instance = on_host.runner.services["instances"].find("web1", "default")
    domain = etree.fromstring(hypervisor.domain_xml(instance.uuid))
    assert domain.find("devices/interface/filterref").get("filter") == name
    assert hypervisor.state(instance.uuid) == "running"

    delete = on_host(lambda: on_host.runner.run(DeleteRequest(name="web1")))
    assert on_host.filters() == set()
    on_host(lambda: on_host.runner.undo(delete.id))
    assert on_host.filters() == {name}
    assert hypervisor.state(instance.uuid) == "running"
    assert on_host(lambda: audit_of(on_host.runner)) == []

    on_host(lambda: on_host.runner.undo(spawn.id))
    assert on_host.filters() == set()
    assert before.difference(on_host.residue()) == []


@pytest.mark.parametrize("point", ["PlugVifs:after", "DefineDomain:after", "StartDomainPaused:after"])
def test_a_failure_takes_the_filter_back(on_host: OnLabHost, point: str) -> None:
    before = on_host.residue()
    with faults.injected(f"{point}:raise"), pytest.raises(OperationFailed):
        on_host(lambda: on_host.runner.run(small("web1")))
    assert on_host.filters() == set()
    assert before.difference(on_host.residue()) == []
