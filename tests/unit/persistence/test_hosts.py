from __future__ import annotations

import multiprocessing
from dataclasses import replace
from functools import partial

import pytest

from virtflow.errors import HostFull, NotFound
from virtflow.persistence.database import Database
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.models.base import now
from virtflow.persistence.models.inventory import allocations
from virtflow.persistence.models.inventory import hosts as table
from virtflow.persistence.operations import OperationRepository, new_operation
from virtflow.persistence.placement import PlacementRepository

SMALL = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}


@pytest.fixture
def hosts(database):
    repository = HostRepository(database)
    repository.register("h1", 4, 1024, 10, cpu_ratio=1.5, capabilities={"arch": "x86_64"}, zone="north")
    return repository


def age_heartbeat(database, name, seconds):
    with database.transaction() as connection:
        values = {"heartbeat_at": now() - seconds * 1_000_000}
        connection.execute(table.update().where(table.c.name == name).values(values))


# -- registering


def test_registering_a_host_as_it_is_writes_nothing(hosts):
    before = hosts.get("h1")
    hosts.register("h1", 4, 1024, 10, cpu_ratio=1.5, capabilities={"arch": "x86_64"})
    assert hosts.get("h1") == before


def test_what_people_decided_survives_a_registration(hosts):
    hosts.disable("h1", "new fans")
    hosts.configure("h1", zone="south", labels={"disk": "ssd"})
    hosts.register("h1", 8, 2048, 20, capabilities={"arch": "aarch64"}, zone="north", worker="w1")
    host = hosts.get("h1")
    assert (host.enabled, host.disabled_reason, host.zone, host.labels) == (False, "new fans", "south", {"disk": "ssd"})
    assert (host.vcpus, host.capabilities) == (8, {"arch": "aarch64"})


def test_capabilities_that_are_not_told_stay(hosts):
    hosts.register("h1", 8, 1024, 10)
    assert hosts.get("h1").capabilities == {"arch": "x86_64"}


def test_a_registration_changes_nothing_about_what_is_claimed(hosts, database):
    PlacementRepository(database).claim("h1", "u1", "op", **SMALL)
    hosts.register("h1", 8, 1024, 10, worker="w1")
    assert hosts.get("h1").used() == (1, 128, 1)


def test_another_process_sees_what_was_registered_anew(hosts, database):
    other = HostRepository(database)
    assert other.get("h1").capabilities == {"arch": "x86_64"}
    hosts.register("h1", 4, 1024, 10, cpu_ratio=1.5, capabilities={"arch": "aarch64"})
    assert other.get("h1").capabilities == {"arch": "aarch64"}


def test_hosts_are_given_in_the_order_in_which_they_are_asked_for(hosts):
    hosts.register("h0", 1, 1, 1)
    assert [host.name for host in hosts.list()] == ["h0", "h1"]
    assert [host.name for host in hosts.list(["h1", "gone", "h0"])] == ["h1", "h0"]


# -- up and down


def test_a_host_without_a_worker_counts_as_down(hosts):
    assert hosts.get("h1").down(60, hosts.now()) == "no worker runs on it"


def test_a_heartbeat_keeps_a_host_up_until_it_is_too_old(hosts, database):
    hosts.register("h1", 4, 1024, 10, worker="w1")
    assert hosts.get("h1").down(60, hosts.now()) is None
    age_heartbeat(database, "h1", 61)
    assert hosts.get("h1").down(60, hosts.now()).startswith("no heartbeat since 20")
    assert hosts.heartbeat("h1", "w1")
    assert hosts.get("h1").down(60, hosts.now()) is None


def test_each_host_is_marked_down_once_whoever_asks(hosts, database, race):
    hosts.register("h1", 4, 1024, 10, worker="w1")
    hosts.register("h2", 4, 1024, 10, worker="w2")
    age_heartbeat(database, "h1", 100)
    marked, raised = race([partial(hosts.mark_down, 50)] * 4)
    assert ([name for names in marked for name in names], raised) == (["h1"], [])
    assert (hosts.get("h1").state, hosts.get("h2").state) == ("DOWN", "UP")


def test_a_host_that_was_marked_down_is_up_with_its_next_heartbeat(hosts, database):
    hosts.register("h1", 4, 1024, 10, worker="w1")
    age_heartbeat(database, "h1", 100)
    hosts.mark_down(50)
    assert hosts.get("h1").down(1000, hosts.now()) is not None
    hosts.heartbeat("h1", "w1")
    assert hosts.get("h1").down(1000, hosts.now()) is None


def test_a_worker_that_lost_its_host_to_another_is_told(hosts):
    hosts.register("h1", 4, 1024, 10, worker="w1")
    hosts.register("h1", 4, 1024, 10, worker="w2")
    assert not hosts.heartbeat("h1", "w1")
    assert not hosts.sign_off("h1", "w1")
    assert hosts.sign_off("h1", "w2")
    assert hosts.get("h1").worker is None


def test_a_fenced_host_is_down_until_its_worker_comes_back(hosts):
    hosts.register("h1", 4, 1024, 10, worker="w1")
    hosts.fence("h1")
    assert hosts.get("h1").down(60, hosts.now()) == "declared fenced"
    hosts.heartbeat("h1", "w1")
    assert hosts.get("h1").down(60, hosts.now()) is None


@pytest.mark.parametrize("verb", ["enable", "disable", "drain", "fence", "configure"])
def test_an_unknown_host_cannot_be_changed(hosts, verb):
    with pytest.raises(NotFound, match="host 'h9' not found"):
        getattr(hosts, verb)("h9")


def test_enabling_ends_a_drain_too(hosts):
    hosts.disable("h1", "why")
    hosts.drain("h1")
    hosts.enable("h1")
    host = hosts.get("h1")
    assert (host.enabled, host.disabled_reason, host.draining) == (True, None, False)


# -- claims


def test_what_is_used_is_always_the_sum_of_the_claims(hosts, database):
    placement = PlacementRepository(database)
    placement.claim("h1", "u1", "op", **SMALL | {"vcpus": 3})
    placement.claim("h1", "u1", "op", **SMALL)
    placement.claim("h1", "u2", "op2", vcpus=2, memory_mib=256, disk_gib=3)
    assert hosts.get("h1").used() == (3, 384, 4)
    placement.release("h1", "u1")
    placement.release("h1", "u1")
    assert hosts.get("h1").used() == (2, 256, 3)


def _claim_until_full(url, process, answers):
    database = Database(url)
    placement = PlacementRepository(database)
    done = 0
    try:
        for number in range(50):
            placement.claim("h1", f"{process}-{number}", "op", **SMALL)
            done += 1
    except HostFull:
        answers.put(done)
    finally:
        database.close()


def test_two_schedulers_in_two_processes_cannot_oversell_a_host(hosts, database):
    hosts.register("h1", 20, 20 * 128, 1000)
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    url = database.engine.url.render_as_string(hide_password=False)
    workers = [spawn.Process(target=_claim_until_full, args=(url, n, answers), daemon=True) for n in range(2)]
    for worker in workers:
        worker.start()
    claimed = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sum(claimed) == 20
    assert hosts.get("h1").used() == (20, 20 * 128, 20)
    with database.connect() as connection:
        assert len(connection.execute(allocations.select()).all()) == 20


def test_claims_of_operations_that_have_not_ended_are_in_flight(hosts, database):
    repository = OperationRepository(database)
    placement = PlacementRepository(database)
    for number, state in enumerate(("RUNNING", "FINISHED")):
        operation = replace(new_operation("spawn", 1, f"instance:i{number}", {}, "p"), state=state)
        repository.create(operation, None)
        placement.claim("h1", f"u{number}", operation.id, **SMALL)
    assert hosts.in_flight() == {"h1": 1}


# -- decisions


def document(chosen, passed=(), refused=()):
    refusals = {host: ["capacity", "needs 2 vcpus, 0 left"] for host in refused}
    return {"chosen": chosen, "alternates": [], "passed": dict.fromkeys(passed, 1.0), "refused": refusals}


def test_of_an_attempt_that_was_decided_twice_the_later_decision_counts(database):
    decisions = DecisionRepository(database)
    for attempt, chosen in ((1, "h1"), (1, "h2"), (2, "h3")):
        decisions.record("op", attempt, document(chosen, [chosen]))
    decisions.record("other", 1, document(None))
    found = decisions.of_operation("op")
    assert [(each.attempt, each.chosen) for each in found] == [(1, "h2"), (2, "h3")]


def test_decisions_about_a_host_are_those_that_chose_or_refused_it(database):
    decisions = DecisionRepository(database)
    decisions.record("a", 1, document("h1", ["h1", "h2"]))
    decisions.record("b", 1, document("h2", ["h2"], ["h1"]))
    decisions.record("c", 1, document("h2", ["h2"]))
    assert [each.operation for each in decisions.about_host("h1")] == ["b", "a"]
    assert [each.operation for each in decisions.about_host("h2", limit=2)] == ["c", "b"]


def test_old_decisions_can_be_forgotten(database):
    decisions = DecisionRepository(database)
    decisions.record("a", 1, document("h1"))
    assert decisions.remove_before(now() + 1) == 1
    assert decisions.of_operation("a") == []
