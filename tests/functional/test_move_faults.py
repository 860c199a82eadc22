"""What goes wrong on the way between two hosts: the guest goes on where it was, with its data."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.conftest import missing
from tests.faults.test_workers import never_twice
from tests.functional.test_migrate import SETTINGS, directory, instance, is_marked, mark, spawned
from tests.lab.proxy import Proxy
from virtflow.errors import Busy, CommandFailed, HostLacks
from virtflow.persistence.operations import Operation
from virtflow.requests import MigrateRequest
from virtflow.testing.fleet import Fleet, await_
from virtflow.transfer.push import push
from virtflow.transfer.receiver import Receiver, Receivers

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def _fleet() -> Iterator[Fleet]:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(**SETTINGS) as up:
        yield up


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    with never_twice(_fleet):
        yield _fleet
        _fleet.start()
        assert _fleet.settle() == []
    for host in _fleet.hosts.values():
        host.stop()


def goes_on(fleet: Fleet, name: str, host: str = "h1") -> None:
    assert (instance(fleet, name).host, instance(fleet, name).task_state) == (host, None)
    assert name in fleet.hosts[host].guests()
    assert is_marked(directory(fleet, host, name) / "disk")


def stopped_before_sending(fleet: Fleet, name: str) -> tuple[Operation, Path]:
    """A move whose disks are about to be sent, and the directory of the daemon that waits for them."""
    fleet.start({"h1": "PushDisks:before:sleep=2"})
    spawned(fleet, name)
    mark(directory(fleet, "h1", name) / "disk")
    move = fleet.client.submit(MigrateRequest(name=name, host="h2"))
    fleet.wait_for_task(move, "PushDisks", host="h1")
    return move, fleet.hosts["h2"].config.instances.path / "_receivers" / move.id


@pytest.mark.parametrize("fault", ["the daemon is killed", "the password is wrong"])
def test_disks_that_nobody_receives_stay_where_they_are(fleet: Fleet, fault: str) -> None:
    name = fault.replace(" ", "-")
    move, receiver = stopped_before_sending(fleet, name)
    if fault == "the daemon is killed":
        os.kill(int((receiver / "pid").read_text()), signal.SIGKILL)
    else:
        (receiver / "secrets").write_text("virtflow:another\n")
    ended = fleet.wait(move)
    assert (ended.outcome, ended.debts) == ("REVERTED", 0), ended.error
    assert "PushDisks" in str(ended.error)
    goes_on(fleet, name)
    assert not receiver.exists()
    again = fleet.wait(fleet.client.submit(MigrateRequest(name=name, host="h2")))
    assert again.outcome == "SUCCESS", again.error
    goes_on(fleet, name, "h2")


def test_a_destination_whose_disk_is_full_leaves_the_guest_where_it_is(fleet: Fleet) -> None:
    h2 = fleet.hosts["h2"]
    instances = h2.config.instances.path
    instances.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3G", "none", instances], check=True)
    try:
        move, _receiver = stopped_before_sending(fleet, "full")
        found = os.statvfs(instances)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={used + (16 << 10)}", instances], check=True)
        ended = fleet.wait(move)
        assert (ended.outcome, ended.debts) == ("REVERTED", 0), ended.error
        assert "No space left" in str(ended.error)
        goes_on(fleet, "full")
        assert not list(instances.glob("*.incoming.*"))
        assert fleet.settle() == []
    finally:
        h2.kill()
        subprocess.run(["umount", "-l", instances], check=True)


def test_of_two_migrations_at_once_one_is_refused_at_once(fleet: Fleet) -> None:
    move, _receiver = stopped_before_sending(fleet, "wanted")
    with pytest.raises(Busy):
        fleet.client.submit(MigrateRequest(name="wanted"))
    assert fleet.wait(move).outcome == "SUCCESS"
    goes_on(fleet, "wanted", "h2")


def arrived(file: Path) -> int:
    """Bytes of it that the receiver has written: what it had only read ends with its process."""
    return file.stat().st_size if file.exists() else 0


def test_what_arrived_before_the_link_was_cut_is_not_sent_again(tmp_path: Path) -> None:
    source, target = tmp_path / "disk", tmp_path / "incoming"
    size = 8 << 20
    source.write_bytes(os.urandom(size))
    target.mkdir()
    receivers = Receivers(tmp_path / "control", "127.0.0.1", (49600, 49699))
    found = receivers.start("operation-2", target, "sesame")
    try:
        with Proxy(found.port, limit=size // 2) as link, ThreadPoolExecutor(1) as threads:
            through = Receiver(found.transport, found.address, link.port, found.path)
            sending = threads.submit(push, [source], through, "sesame")
            await_(lambda: link.frozen, "half of it")
            await_(lambda: arrived(target / "disk") > size * 3 // 8, "that most of that half has been written")
            receivers.stop("operation-2")
            link.thaw()
            with pytest.raises(CommandFailed):
                sending.result()
        assert size * 3 // 8 < arrived(target / "disk") < size, "what has arrived stays"
        found = receivers.start("operation-2", target, "sesame")
        with Proxy(found.port) as link:
            push([source], Receiver(found.transport, found.address, link.port, found.path), "sesame")
            assert link.sent < size * 3 // 4
        assert (target / "disk").read_bytes() == source.read_bytes()
    finally:
        receivers.stop("operation-2")


def test_receivers_that_start_at_once_have_a_port_each(tmp_path: Path) -> None:
    receivers = Receivers(tmp_path / "control", "127.0.0.1", (49600, 49699))
    names = [f"operation-{number}" for number in range(8)]
    for name in names:
        (tmp_path / name).mkdir()
    try:
        for _ in range(5):
            with ThreadPoolExecutor(len(names)) as threads:
                started = list(threads.map(lambda name: receivers.start(name, tmp_path / name, "secret"), names))
            assert len({receiver.port for receiver in started}) == len(names)
    finally:
        for name in names:
            receivers.stop(name)


def test_a_host_whose_address_nobody_knows_says_which_option_tells_it(tmp_path: Path) -> None:
    receivers = Receivers(tmp_path / "receivers", "nowhere.invalid", (49300, 49399))
    with pytest.raises(HostLacks, match=r"address nowhere.invalid .*set \[resize\] address"):
        receivers.start("a", tmp_path / "a", "sesame")
