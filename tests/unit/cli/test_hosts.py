"""``virtflow host`` and the decisions of ``virtflow operation show``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from virtflow.persistence.database import Database
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.placement import PlacementRepository

Cli = Callable[..., Any]
OK = "11111111-0000-4000-8000-000000000001"
INSTANCE = "aaaaaaaa-0000-4000-8000-000000000001"
FIRST = {
    "chosen": "node1",
    "alternates": ["node2"],
    "passed": {"node1": 2.0, "node2": 1.5},
    "refused": {"node3": ["capacity", "needs 4096 MiB of memory, 1024 left"]},
}
SECOND = {
    "chosen": "node2",
    "alternates": [],
    "passed": {"node2": 1.5},
    "refused": {"node1": ["retry", "tried before: DefineDomain: no"]},
}


@pytest.fixture
def hosts(seeded: Database) -> HostRepository:
    """Two hosts with workers and one without; the seeded operation was tried on node1, and then on node2."""
    hosts = HostRepository(seeded)
    for name in ("node1", "node2"):
        inventory = {"cpu_ratio": 2.0, "capabilities": {"arch": "x86_64", "machines": ["pc"]}, "worker": f"w of {name}"}
        hosts.register(name, 4, 8192, 100, **inventory)
    hosts.register("node3", 4, 8192, 100)
    PlacementRepository(seeded).claim("node2", INSTANCE, OK, vcpus=2, memory_mib=1024, disk_gib=10)
    decisions = DecisionRepository(seeded)
    decisions.record(OK, 1, FIRST)
    decisions.record(OK, 2, SECOND)
    return hosts


def shown(cli: Cli, *words: str) -> Any:
    answer = cli(*words, "-f", "json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


@pytest.mark.usefixtures("hosts")
def test_hosts_are_listed_with_what_is_claimed_of_them(cli: Cli) -> None:
    first, second, third = shown(cli, "host", "list")
    assert first == {
        "name": "node1", "zone": "nova", "status": "enabled", "state": "up", "instances": 0,
        "vcpus": {"used": 0, "of": 8}, "memory_mib": {"used": 0, "of": 8192}, "disk_gib": {"used": 0, "of": 100},
    }  # fmt: skip
    assert (second["vcpus"], second["instances"]) == ({"used": 2, "of": 8}, 1)
    assert third["state"] == "no worker"
    assert "| 2 of 8 " in cli("host", "list").out


@pytest.mark.usefixtures("hosts")
def test_a_host_is_shown_with_its_instances_and_what_decisions_said_of_it(cli: Cli) -> None:
    host = shown(cli, "host", "show", "node2")
    assert host["usage"]["memory_mib"] == {"used": 1024, "of": 8192}
    assert host["instances"] == [{"name": "web1", "id": INSTANCE, "vcpus": 2, "memory_mib": 1024, "disk_gib": 10}]
    assert host["capabilities"] == {"arch": "x86_64"}
    assert [(each["attempt"], each["verdict"], each["reason"]) for each in host["decisions"]] == [
        (2, "chosen", None),
        (1, "passed, not chosen", "weight 1.5, node1 had 2"),
    ]


@pytest.mark.usefixtures("hosts")
def test_why_a_host_was_not_chosen_is_told_in_words(cli: Cli) -> None:
    (verdict,) = shown(cli, "host", "show", "node3")["decisions"]
    assert (verdict["verdict"], verdict["reason"]) == ("refused by capacity", "needs 4096 MiB of memory, 1024 left")
    assert "refused by retry: tried before: DefineDomain: no" in cli("host", "show", "node1").out


def test_a_host_is_disabled_with_a_reason_drained_and_enabled(cli: Cli, hosts: HostRepository) -> None:
    assert cli("host", "disable", "node1", "--reason", "new fans").code == 0
    assert hosts.get("node1").disabled_reason == "new fans"
    assert shown(cli, "host", "show", "node1")["status"] == "disabled"
    assert cli("host", "enable", "node1").code == 0
    assert cli("host", "drain", "node1", "--mark").code == 0
    assert shown(cli, "host", "show", "node1")["status"] == "draining"
    assert cli("host", "enable", "node1").code == 0
    assert shown(cli, "host", "show", "node1")["status"] == "enabled"


def test_zone_and_labels_are_set_and_forgotten(cli: Cli, hosts: HostRepository) -> None:
    assert cli("host", "set", "node1", "--zone", "north", "--label", "disk=ssd", "--label", "rack=7").code == 0
    host = hosts.get("node1")
    assert (host.zone, host.labels) == ("north", {"disk": "ssd", "rack": "7"})
    assert cli("host", "set", "node1", "--no-labels").code == 0
    assert (hosts.get("node1").zone, hosts.get("node1").labels) == ("north", {})


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "node9"), 3, "host 'node9' not found"),
        (("enable", "node9"), 3, "host 'node9' not found"),
        (("set", "node1"), 2, "say what to change"),
        (("set", "node1", "--zone", "../x"), 2, "zone: must be"),
        (("disable", "node1", "--reason", "a\x1bb"), 2, "reason: contains the control character"),
    ],
)
def test_what_cannot_be_is_refused(cli: Cli, words: tuple[str, ...], code: int, message: str) -> None:
    answer = cli("host", *words)
    assert answer.code == code
    assert message in answer.err


@pytest.mark.usefixtures("hosts")
def test_an_operation_tells_each_attempt_and_why_not_the_other_hosts(cli: Cli) -> None:
    first, second = shown(cli, "operation", "show", "1")["decisions"]
    assert first.pop("at").endswith("Z")
    assert first == {"attempt": 1, **FIRST}
    assert second["refused"] == SECOND["refused"]
    table = cli("operation", "show", "1").out
    assert "attempt 1: node1, then node2" in table
    assert "  not node3: needs 4096 MiB of memory, 1024 left" in table
    assert "attempt 2: node2" in table


@pytest.mark.usefixtures("hosts")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("host", "drain", "node1"), 2, "only workers move instances"),
        (("host", "drain", "node9", "--mark"), 3, "host 'node9' not found"),
        (("host", "drain", "node1", "--at-once", "0"), 2, "no number from 1 to 1000"),
        (("evacuate", "node1", "--fenced"), 2, "only workers move instances"),
    ],
)
def test_what_leaves_a_host_needs_workers_to_move_it(cli: Cli, words: tuple[str, ...], code: int, message: str) -> None:
    told = cli(*words)
    assert (told.code, message in told.err) == (code, True), told.err
