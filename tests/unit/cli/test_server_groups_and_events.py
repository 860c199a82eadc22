"""``virtflow server-group``, ``virtflow event`` and ``spawn --count``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.cli.group import outcome_of_group
from virtflow.cli.spawn import Spawn, build_request
from virtflow.errors import OperationFailed, RevertIncomplete
from virtflow.persistence.database import Database
from virtflow.persistence.operations import Operation, new_operation
from virtflow.persistence.server_groups import ServerGroupRepository
from virtflow.persistence.vif_events import VifEventRepository

Cli = Callable[..., Any]
INSTANCE, PORT = "aaaaaaaa-0000-4000-8000-000000000001", "cccccccc-0000-4000-8000-000000000001"


def test_a_server_group_is_created_shown_listed_and_deleted(cli: Cli, seeded: Database) -> None:
    made = cli("server-group", "create", "spread", "--policy", "anti-affinity", "-f", "json")
    assert made.code == 0, made.err
    group = json.loads(made.out)
    assert (group["name"], group["policy"], group["members"]) == ("spread", "anti-affinity", [])
    ServerGroupRepository(seeded).join(group["id"], INSTANCE, "op", limit=10)
    assert json.loads(cli("server-group", "list", "-f", "json").out) == [
        {"name": "spread", "id": group["id"], "policy": "anti-affinity", "members": ["web1"]}
    ]
    shown = json.loads(cli("server-group", "show", "spread", "-f", "json").out)
    assert shown["members"] == [{"name": "web1", "id": INSTANCE, "host": None}]
    refused = cli("server-group", "delete", "spread")
    assert (refused.code, refused.err) == (
        4,
        "virtflow: error: cannot delete server group 'spread': instance web1 is in it\n",
    )
    ServerGroupRepository(seeded).leave(INSTANCE, "op")
    assert cli("server-group", "delete", "spread").code == 0
    assert cli("server-group", "show", "spread").code == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("spread",), 2, "the following arguments are required: --policy"),
        (("spread", "--policy", "nearby"), 2, "invalid choice: 'nearby'"),
        (("../x", "--policy", "affinity"), 2, "name: must be 1 to 63 letters"),
    ],
)
def test_a_server_group_that_cannot_be_is_refused(
    cli: Cli, seeded: Database, words: tuple[str, ...], code: int, message: str
) -> None:
    answer = cli("server-group", "create", *words)
    assert answer.code == code
    assert message in answer.err


@pytest.mark.parametrize("port", [PORT, "10.0.0.9", "52:54:00:00:00:01", "vfcccccccc000"])
def test_a_plugged_cable_is_reported_by_any_name_of_its_port(cli: Cli, seeded: Database, port: str) -> None:
    assert cli("event", "vif-plugged", "web1", port).code == 0
    assert VifEventRepository(seeded).states(INSTANCE) == {PORT: "PLUGGED"}


def test_a_cable_that_could_not_be_plugged_is_reported_too(cli: Cli, seeded: Database) -> None:
    assert cli("event", "vif-plugged", "web1", PORT.upper(), "--failed").code == 0
    assert VifEventRepository(seeded).states(INSTANCE) == {PORT: "FAILED"}


@pytest.mark.parametrize(
    ("words", "message"),
    [(("web1", "10.0.0.10"), "port of instance web1 '10.0.0.10' not found"), (("db", PORT), "instance 'db' not found")],
)
def test_an_event_of_something_unknown_is_refused(
    cli: Cli, seeded: Database, words: tuple[str, ...], message: str
) -> None:
    answer = cli("event", "vif-plugged", *words)
    assert answer.code == 3
    assert message in answer.err


def parse(*words: str) -> Any:
    parser = Spawn(SimpleNamespace(), None, cmd_name="spawn").get_parser("virtflow spawn")
    return build_request(parser.parse_args(["web", "--image", "i", "--flavor", "f", *words]))


@pytest.mark.parametrize(("text", "counts"), [("3", (3, 3)), ("2-5", (2, 5)), ("1", (1, 1))])
def test_a_count_is_a_number_or_a_range(text: str, counts: tuple[int, int]) -> None:
    request = parse("--count", text)
    assert (request.min_count, request.most) == counts


def test_a_server_group_is_part_of_the_request() -> None:
    assert parse("--server-group", "spread").server_group == "spread"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "argument --count: must be MIN or MIN-MAX, whole numbers"),
        ("2-", "argument --count: must be MIN or MIN-MAX, whole numbers"),
        ("5-2", "max_count: must be at least min_count (5)"),
        ("0", "min_count: must be at least 1"),
    ],
)
def test_a_count_that_is_none_is_a_usage_error(cli: Cli, database: Database, text: str, message: str) -> None:
    answer = cli("spawn", "web", "--image", "i", "--flavor", "f", "--count", text)
    assert answer.code == 2
    assert message in answer.err


def member(outcome: str, debts: int = 0) -> Operation:
    operation = new_operation("spawn", 1, "instance:web", {}, "default", group="g")
    return replace(operation, state="FINISHED", outcome=outcome, error="X: why", debts=debts)


def test_a_group_of_which_all_succeeded_is_shown() -> None:
    columns, values = outcome_of_group([member("SUCCESS"), member("SUCCESS")])
    assert columns == ("group", "count", "operations")
    assert list(values)[:2] == ["g", 2]


def test_a_group_of_which_some_failed_is_a_failure_that_says_how_many() -> None:
    with pytest.raises(OperationFailed, match=r"spawn of 1 of 2 instances \(group g\) failed: X: why"):
        outcome_of_group([member("SUCCESS"), member("REVERTED")])
    with pytest.raises(RevertIncomplete, match="3 thing"):
        outcome_of_group([member("REVERTED_WITH_DEBT", 3), member("REVERTED")])
