"""What the listing commands print, against golden files: the JSON forms are a documented contract."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

Golden = Callable[[str, str], None]
Cli = Callable[..., Any]

COMMANDS = [
    "operation list",
    "operation show 1",
    "operation show 2",
    "instance list",
    "instance show web1",
    "flavor list",
    "flavor show small",
    "network list",
    "network show blue",
    "quota list",
    "quota show",
]
FORMATS = ["table", "json"]


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_what_it_always_printed(cli: Cli, same_as_golden: Golden, command: str, form: str) -> None:
    answer = cli(*command.split(), "-f", form)
    assert (answer.code, answer.err) == (0, "")
    same_as_golden(f"{command.replace(' ', '-')}.{'json' if form == 'json' else 'txt'}", answer.out)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("command", COMMANDS)
def test_yaml_says_the_same_as_json(cli: Cli, command: str) -> None:
    as_json = json.loads(cli(*command.split(), "-f", "json").out)
    assert yaml.safe_load(cli(*command.split(), "-f", "yaml").out) == as_json


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("command", COMMANDS)
def test_csv_has_a_header_and_as_many_rows_as_json(cli: Cli, command: str) -> None:
    as_json = json.loads(cli(*command.split(), "-f", "json").out)
    rows = list(csv.reader(io.StringIO(cli(*command.split(), "-f", "csv").out)))
    objects = as_json if isinstance(as_json, list) else [as_json]
    assert rows[0] == list(objects[0])
    assert len(rows) == len(objects) + 1


@pytest.mark.usefixtures("seeded")
def test_operation_show_has_every_documented_key(cli: Cli) -> None:
    plain = json.loads(cli("operation", "show", "2", "-f", "json").out)
    documented = {"id", "kind", "target", "state", "outcome", "started_at", "finished_at", "error", "debts", "tasks"}
    assert documented <= set(plain)
    task = {"name", "flow", "host", "state", "attempts", "started_at", "duration_ms", "progress", "error"}
    assert task <= set(plain["tasks"][0])


@pytest.mark.usefixtures("seeded")
def test_columns_can_be_chosen_and_an_unknown_column_is_a_usage_error(cli: Cli) -> None:
    assert cli("operation", "list", "-f", "value", "-c", "number").out == "2\n1\n"
    wrong = cli("operation", "list", "-c", "colour")
    assert wrong.code == 2
    assert wrong.err.count("\n") == 1


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--outcome", "success"], "1\n"),
        (["--target", "instance:web2"], "2\n"),
        (["--kind", "delete"], ""),
        (["--state", "running"], ""),
        (["--limit", "1"], "2\n"),
    ],
)
def test_operations_are_filtered(cli: Cli, options: list[str], numbers: str) -> None:
    assert cli("operation", "list", "-f", "value", "-c", "number", *options).out == numbers


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("reference", ["2", "22222222-0", "--last"])
def test_an_operation_is_found_by_number_by_the_beginning_of_its_id_and_as_the_last(cli: Cli, reference: str) -> None:
    assert cli("operation", "show", reference, "-f", "value", "-c", "number").out == "2\n"


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    "command",
    ["operation show 9", "instance show db9", "flavor show huge", "network show red", "flavor delete huge"],
)
def test_what_is_not_there_is_one_line_and_exit_code_3(cli: Cli, command: str) -> None:
    answer = cli(*command.split())
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("virtflow: error: ")
    assert answer.err.count("\n") == 1
