"""Workers on the lab's hosts: real libvirtd, each in a network of its own, and a third place that submits."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import Lab, missing
from tests.lab.processes import wait_until
from tests.lab.workers import IMAGE, NETWORK, LabWorkers, furnish
from virtflow import SpawnRequest
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.worker.connecting import connect

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def workers() -> Iterator[LabWorkers]:
    if reason := missing():
        pytest.skip(reason)
    with Lab.up(Path(tempfile.mkdtemp(prefix="vflab-")), hosts=2) as lab:
        furnished = furnish(lab)
        for host in lab.hosts:
            furnished.start(host)
        yield furnished


@pytest.fixture
def client(workers: LabWorkers) -> Iterator[Runner]:
    with connect(load([workers.client], env={}))[0] as runner:
        yield runner


def spawn(client: Runner, name: str) -> str:
    size = {"vcpus": 1, "memory_mib": 32, "disk_gib": 1}
    request = SpawnRequest(name=name, image=IMAGE, networks=[{"network": NETWORK}], **size)  # type: ignore[arg-type]
    asked = client.submit(request)
    assert wait_until(lambda: client.operations.get(asked.id, tasks=False).state == "FINISHED", 60, 0.1)
    ended = client.operations.get(asked.id)
    assert ended.outcome == "SUCCESS", ended.error
    return str(client.services["instances"].find(name, "default").host)


def test_guests_land_on_both_hosts_and_a_libvirtd_that_is_killed_costs_nothing(
    workers: LabWorkers, client: Runner
) -> None:
    hosts = {host.name: host for host in workers.lab.hosts}
    first = spawn(client, "one")
    assert spawn(client, "two") != first
    assert workers.settle(20) == []
    killed = hosts[first]
    os.kill(killed.libvirtd_pid(), signal.SIGKILL)
    spawn(client, "three")
    killed.start()
    spawn(client, "four")
    spawn(client, "five")
    assert workers.settle(90) == []
