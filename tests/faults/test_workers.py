"""Whatever dies under workers: what was asked is done, or is as if it had never begun, and nothing runs twice.

The whole sweep over durable writes is for VIRTFLOW_WHOLE_SWEEP=1; usually every eighth is tried.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.faults.conftest import missing
from tests.lab import etcd as lab_etcd
from tests.lab import postgres as lab_postgres
from tests.lab import redis as lab_redis
from tests.lab import zookeeper as lab_zookeeper
from tests.lab.postgres import Postgres, postgres
from tests.lab.proxy import Proxy
from tests.lab.servers import running as server_up
from virtflow import DeleteRequest
from virtflow.errors import VirtflowError
from virtflow.persistence.models.engine import journal
from virtflow.persistence.operations import Operation
from virtflow.persistence.posting import OPERATIONS, Posting
from virtflow.testing.fleet import Fleet, FleetHost, await_
from virtflow.testing.fleet_sweep import kill_at, on

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(300)]

WRITES = range(1, 44) if os.environ.get("VIRTFLOW_WHOLE_SWEEP") else range(3, 44, 8)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if reason := missing() or lab_postgres.missing():
        pytest.skip(reason)
    with postgres() as started:
        yield started


@pytest.fixture(scope="module")
def _fleet(server: Postgres) -> Iterator[Fleet]:
    with Fleet.up(database=server.socket_url(server.create_database()), apart=True) as fleet:
        yield fleet


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    """Two hosts whose workers run, without faults, on PostgreSQL; whatever a test does, everything holds afterwards.

    A worker that was started without a fault is the next test's, too.
    """
    _fleet.start()
    with never_twice(_fleet):
        yield _fleet
        _fleet.start()
        assert _fleet.settle() == []
    _fleet.gate.unlink(missing_ok=True)
    for host in _fleet.hosts.values():
        if host.fault:
            host.stop()


@pytest.fixture
def h1(fleet: Fleet) -> FleetHost:
    return fleet.hosts["h1"]


class never_twice:  # noqa: N801 - used as a context manager
    """Looks all the time whether a guest runs on two hosts."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._end = threading.Event()
        self._seen: set[str] = set()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()
        assert not self._seen, f"ran on two hosts at once: {self._seen}"

    def _look(self) -> None:
        while not self._end.wait(0.1):
            guests = [host.guests().keys() for host in self._fleet.hosts.values()]
            self._seen |= {name for one, other in itertools.combinations(guests, 2) for name in one & other}


def restart(fleet: Fleet, host: FleetHost, fault: str) -> None:
    host.stop()
    host.start(fault)
    fleet.await_registered(host)


def hosts_tried(fleet: Fleet, operation: Operation) -> list[str | None]:
    from virtflow.persistence.decisions import DecisionRepository

    return [each.chosen for each in DecisionRepository(fleet.client.database).of_operation(operation.id)]


# -- a worker is killed, or sleeps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "not restarted"])
@pytest.mark.parametrize("write", WRITES)
def test_a_worker_killed_at_a_durable_write_of_a_spawn_or_a_delete_loses_nothing(
    fleet: Fleet, write: int, restarted: bool
) -> None:
    assert kill_at(fleet, write, restarted=restarted) == []


def test_a_worker_killed_while_it_makes_a_disk_and_never_restarted_is_replaced_by_another_host_and_cleans_up_later(
    fleet: Fleet, h1: FleetHost
) -> None:
    restart(fleet, h1, "CreateCowOverlay:before:kill")
    asked = on(fleet, h1, fleet.small())
    ended = fleet.wait(asked)
    assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])
    assert ended.debts == 1
    assert any(problem.startswith("h1: debt") for problem in fleet.problems())
    h1.start()
    fleet.await_registered(h1)
    assert fleet.settle() == []
    assert fleet.client.operations.get(ended.id).debts == 0


def test_a_guest_that_may_run_waits_for_its_host_until_somebody_vouches_that_nothing_runs_there(
    fleet: Fleet, h1: FleetHost
) -> None:
    restart(fleet, h1, "StartDomainPaused:before:kill")
    asked = on(fleet, h1, fleet.small())
    hosts = fleet.client.core.hosts
    await_(lambda: hosts.get("h1").state == "DOWN", "that h1 is down")
    time.sleep(1.5)  # rounds of the reconciler
    assert not fleet.over(asked)
    assert hosts_tried(fleet, asked) == ["h1"]
    hosts.fence("h1")
    ended = fleet.wait(asked)
    assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])


def test_a_host_that_fails_gives_way_to_another_and_keeps_nothing(fleet: Fleet, h1: FleetHost) -> None:
    restart(fleet, h1, "DefineDomain:before:raise")
    ended = fleet.wait(on(fleet, h1, fleet.small()))
    assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])
    assert fleet.settle() == []


def test_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes_and_says_why(
    fleet: Fleet, h1: FleetHost
) -> None:
    restart(fleet, h1, "CreateCowOverlay:after:stop")
    ended = fleet.wait(on(fleet, h1, fleet.small()))
    assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])
    before = written_by(fleet, "h1")
    h1.signal(signal.SIGCONT)
    await_(lambda: "taken over" in h1.log.read_text(), "that the worker says why it stops", log=h1.log)
    assert fleet.settle() == []
    after = {(task, event) for task, event, _sequence in written_by(fleet, "h1") - before if task is not None}
    assert {event for _task, event in after} <= {"REVERTING", "REVERTED"}, "after it woke, it went on with something"
    assert fleet.client.operations.get(ended.id).outcome == "SUCCESS"


def written_by(fleet: Fleet, host: str) -> set[tuple[str, str, int]]:
    columns = journal.c.atom, journal.c.event, journal.c.sequence
    with fleet.client.database.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.select(*columns).where(journal.c.host == host))}


def test_a_guest_that_dies_before_it_runs_is_made_on_another_host(fleet: Fleet, h1: FleetHost) -> None:
    fleet.gate.touch()
    restart(fleet, h1, f"WaitRunning:before:hold={fleet.gate}")
    asked = on(fleet, h1, fleet.small())
    fleet.wait_for_task(asked, "WaitRunning", host="h1")
    name = str(asked.request["name"])
    root = h1.config.libvirt.embed_root
    assert root is not None
    os.kill(h1.guests()[name], signal.SIGKILL)
    await_(lambda: not (root / "run" / "qemu" / f"{name}.pid").exists(), "that libvirt knows that it is dead")
    fleet.gate.unlink()
    ended = fleet.wait(asked)
    assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])


def test_a_host_whose_disk_is_full_gives_way_to_another(server: Postgres) -> None:
    # Of its own: what is mounted over the instances of a host hides those that are there.
    with Fleet.up(database=server.socket_url(server.create_database()), apart=True) as fleet, never_twice(fleet):
        h1 = fleet.hosts["h1"]
        instances = h1.config.instances.path
        instances.mkdir(mode=0o711)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3G", "none", instances], check=True)
        try:
            fleet.start()
            # Once it takes work, it does not look any more at how much it has.
            await_(lambda: "worker of host h1" in h1.log.read_text(), "that h1 takes work", log=h1.log)
            subprocess.run(["mount", "-o", "remount,size=64k", instances], check=True)
            ended = fleet.wait(on(fleet, h1, fleet.small()))
            assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])
            assert fleet.settle() == []
        finally:
            h1.kill()
            subprocess.run(["umount", "-l", instances], check=True)


# -- the same thing twice, different things at once -------------------------------------------------------------------


def test_a_job_that_comes_twice_or_for_something_finished_does_nothing(fleet: Fleet) -> None:
    asked = fleet.client.submit(fleet.small())
    for _ in range(3):
        fleet.client.core.post(Posting(OPERATIONS, asked.id))
    ended = fleet.wait(asked)
    assert ended.outcome == "SUCCESS"
    before = written_by(fleet, "h1") | written_by(fleet, "h2")
    fleet.client.core.post(Posting(OPERATIONS, asked.id))
    await_(lambda: not fleet.board.jobs(), "an empty board")
    assert written_by(fleet, "h1") | written_by(fleet, "h2") == before


def test_the_same_request_submitted_twice_at_once_with_a_key_is_one_operation(fleet: Fleet) -> None:
    request = fleet.small()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: fleet.client.submit(request, key=f"key-{request.name}"), range(8)))
    assert len({operation.id for operation in found}) == 1
    assert fleet.wait(found[0]).outcome == "SUCCESS"


VERBS = ("spawn", "delete", "cancel", "undo")


@pytest.mark.parametrize("first", VERBS)
def test_two_verbs_on_one_instance_at_the_same_time_are_in_some_order_or_refused(fleet: Fleet, first: str) -> None:
    """``cancel`` and ``undo`` are of the spawn."""
    for second in VERBS:
        request = fleet.small()
        spawned = fleet.client.submit(request)
        if "undo" in (first, second) or "spawn" in (first, second):
            fleet.wait(spawned)
        barrier = threading.Barrier(2)

        def verb(
            word: str, request: object = request, spawned: Operation = spawned, barrier: object = barrier
        ) -> object:
            barrier.wait()  # type: ignore[attr-defined]
            try:
                if word == "spawn":
                    return fleet.client.submit(request)  # type: ignore[arg-type]
                if word == "delete":
                    return fleet.client.submit(DeleteRequest(name=request.name))  # type: ignore[attr-defined]
                return fleet.client.cancel(spawned.id) if word == "cancel" else fleet.client.request_undo(spawned.id)
            except VirtflowError as refused:
                return refused

        with ThreadPoolExecutor(2) as threads:
            told = list(threads.map(verb, (first, second)))
        for each in told:
            if isinstance(each, Operation):
                fleet.wait(each)
        assert all(isinstance(each, Operation | VirtflowError) for each in told)
    assert fleet.settle() == []


# -- what workers lean on dies ----------------------------------------------------------------------------------------


def test_a_database_that_crashes_and_comes_back_leaves_an_operation_done_or_not_begun(
    server: Postgres, fleet: Fleet, h1: FleetHost
) -> None:
    fleet.gate.touch()
    restart(fleet, h1, f"CreateCowOverlay:after:hold={fleet.gate}")
    asked = on(fleet, h1, fleet.small())
    fleet.wait_for_task(asked, "CreateCowOverlay")
    server.crash()
    fleet.gate.unlink()
    time.sleep(2.5)  # longer than a lease
    server.start_again()
    assert fleet.wait(asked).outcome in ("SUCCESS", "REVERTED")


def test_an_sqlite_database_that_somebody_locks_for_half_a_minute_leaves_an_operation_done_or_not_begun() -> None:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(apart=True) as fleet:
        fleet.start()
        with never_twice(fleet):
            asked = fleet.client.submit(fleet.small())
            locker = fleet.client.database.engine.raw_connection()
            try:
                locker.cursor().execute("BEGIN EXCLUSIVE")
                time.sleep(30)  # as long as anybody waits for it
                locker.rollback()
            finally:
                locker.close()
            assert fleet.wait(asked).outcome in ("SUCCESS", "REVERTED")
            assert fleet.settle() == []


def test_a_worker_cut_off_from_the_database_is_replaced_and_changes_nothing_when_it_is_back(server: Postgres) -> None:
    with Proxy(server.port) as proxy:
        name = server.create_database()
        url = server.url(name.rpartition("/")[2])
        cut_off = {"h1": {"database.url": url.replace(f":{server.port}/", f":{proxy.port}/")}}
        with Fleet.up(database=url, special=cut_off) as fleet:
            h1 = fleet.hosts["h1"]
            fleet.gate.touch()
            fleet.start({"h1": f"CreateCowOverlay:after:hold={fleet.gate}"})
            with never_twice(fleet):
                # Both hosts are in one network namespace: taps of one would be taken for the other's.
                asked = on(fleet, h1, fleet.small(networks=[]))
                fleet.wait_for_task(asked, "CreateCowOverlay", host="h1")
                proxy.freeze()
                fleet.gate.unlink()
                ended = fleet.wait(asked)
                assert (ended.outcome, hosts_tried(fleet, ended)) == ("SUCCESS", ["h1", "h2"])
                proxy.thaw()
                assert fleet.settle() == []


BOARDS = {"redis": (lab_redis, lab_redis.Redis), "zookeeper": (lab_zookeeper, lab_zookeeper.ZooKeeper)}
BOARDS |= {"etcd": (lab_etcd, lab_etcd.Etcd)}


@pytest.mark.parametrize("kind", BOARDS)
def test_a_board_that_dies_and_comes_back_empty_loses_no_operation(server: Postgres, kind: str) -> None:
    module, make = BOARDS[kind]
    if reason := module.missing():
        pytest.skip(reason)
    with server_up(make) as board:
        settings = {"jobboard.backend": kind, "jobboard.url": board.url}
        with Fleet.up(database=server.create_database(), **settings) as fleet:
            fleet.gate.touch()
            fleet.start(dict.fromkeys(fleet.hosts, f"CreateCowOverlay:after:hold={fleet.gate}"))
            first = fleet.client.submit(fleet.small())
            fleet.wait_for_task(first, "CreateCowOverlay")
            board.kill()
            board.wipe()
            fleet.gate.unlink()
            board.start()
            second = fleet.client.submit(fleet.small())
            assert fleet.wait(first).outcome == "SUCCESS"
            assert fleet.wait(second).outcome == "SUCCESS"
            assert fleet.settle() == []
