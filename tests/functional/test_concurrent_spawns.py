"""Eight at once, in one runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.nodes import Console, Node, booting, links_of, node_up
from virtflow import DeleteRequest
from virtflow.errors import AlreadyExists, Busy, QuotaExceeded

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

EIGHT = [f"web{number}" for number in range(1, 9)]


def all_at_once(function: Callable[[str], Any], names: list[str]) -> list[Any]:
    """What each call returned, or raised."""
    gate = threading.Barrier(len(names))

    def call(name: str) -> Any:
        gate.wait()
        try:
            return function(name)
        except Exception as error:  # noqa: BLE001 - handed to the test
            return error

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(call, names))


def test_eight_spawns_of_one_cold_image_fetch_it_once_and_all_boot(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = node.residue()
    source = node.runner.services["image_source"]
    read, fetched = source.read, []

    def slowly(record: Any, offset: int) -> Iterator[bytes]:
        fetched.append(offset)
        time.sleep(0.5)  # the others come to the lock meanwhile
        yield from read(record, offset)

    monkeypatch.setattr(source, "read", slowly)
    done = all_at_once(lambda name: node.runner.run(booting(name)), EIGHT)
    assert [getattr(operation, "outcome", operation) for operation in done] == ["SUCCESS"] * len(EIGHT)
    assert fetched == [0]
    ports = [node.port(name) for name in EIGHT]
    for values in ({port.address for port in ports}, {port.mac for port in ports}, {port.tap for port in ports}):
        assert len(values) == len(EIGHT)
    assert set(links_of(node.network.bridge)) == {node.network.bridge, *(port.tap for port in ports)}
    for name, port in zip(EIGHT, ports, strict=True):
        console = Console(node.directory(name) / "console.log").wait_ready()
        assert console.line("ADDRESS") == f"eth0 {port.address} 255.255.255.0"
        assert console.document("CONFIG-DRIVE")["name"] == name
    undone = all_at_once(node.runner.undo, [operation.id for operation in done])
    assert [getattr(operation, "outcome", operation) for operation in undone] == ["UNDONE"] * len(EIGHT)
    assert node.left_since(before) == []


@pytest.fixture
def tight(embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path) -> Iterator[Node]:
    with node_up(embed_root, catalog, **{"quota.vcpus": "3"}) as node:
        yield node


def test_quota_is_never_oversold(tight: Node) -> None:
    done = all_at_once(lambda name: tight.spawn(name, networks=[], config_drive=False), EIGHT)
    refusals = [error for error in done if isinstance(error, QuotaExceeded)]
    assert len(refusals) == len(EIGHT) - 3
    assert sum(getattr(operation, "outcome", None) == "SUCCESS" for operation in done) == 3
    usage = tight.runner.services["quotas"].usage(tight.config.project)["vcpus"]
    assert (usage.used, usage.reserved) == (3, 0)
    assert len(tight.instances.list()) == 3


def test_of_eight_spawns_of_one_name_one_succeeds(node: Node) -> None:
    done = all_at_once(lambda _name: node.spawn("web1", networks=[], config_drive=False), EIGHT)
    assert sum(getattr(operation, "outcome", None) == "SUCCESS" for operation in done) == 1
    others = [error for error in done if isinstance(error, Exception)]
    assert {type(error) for error in others} <= {Busy, AlreadyExists}
    assert node.state_of("web1") == "running"
    assert len(node.hypervisor.domains()) == 1


def test_an_address_that_eight_want_is_given_to_one(node: Node) -> None:
    wanted = [{"network": "net0", "address": "10.93.7.99"}]
    done = all_at_once(lambda name: node.spawn(name, networks=wanted, config_drive=False), EIGHT)
    assert sum(getattr(operation, "outcome", None) == "SUCCESS" for operation in done) == 1
    assert len(node.networks.ports()) == 1


def test_of_eight_deletes_of_one_instance_one_succeeds(node: Node) -> None:
    node.spawn("web1")
    done = all_at_once(lambda _name: node.runner.run(DeleteRequest(name="web1")), EIGHT)
    assert sum(getattr(operation, "outcome", None) == "SUCCESS" for operation in done) == 1
    assert node.hypervisor.domains() == []
