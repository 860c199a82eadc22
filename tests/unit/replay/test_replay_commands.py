"""``virtflow replay ...`` as it is typed: on a database, on files, and on what is neither."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.replay.test_files import packed
from virtflow.cli.main import Virtflow
from virtflow.replay.recording import Recording, to_plain
from virtflow.testing.recordings import RecordingStudio, Step

Cli = Callable[..., tuple[int, str, str]]


def failing() -> Any:
    return linear_flow.Flow("toy").add(
        Step("Disk", result="/disk", provides="disk", makes=[("file", "/nowhere/disk")]),
        Step("Domain", needs=["disk"], fails=-1, message="no memory"),
        Step("Finish"),
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.setattr("virtflow.config.loading.SYSTEM_FILE", tmp_path / "none.conf")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    root = logging.getLogger()
    level = root.level

    def run(*argv: str, state_dir: Path = tmp_path) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = Virtflow(out, err).run(["--state-dir", str(state_dir), "replay", *argv])
        return code, out.getvalue(), err.getvalue()

    yield run
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler.get_name() == "virtflow"]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def recorded(studio: RecordingStudio) -> Recording:
    return studio.record(failing)


@pytest.mark.parametrize("reference", ["1", "--last", "prefix"])
def test_an_operation_is_named_by_number_prefix_or_last(cli: Cli, recorded: Recording, reference: str) -> None:
    code, out, err = cli("show", recorded.operation.id[:6] if reference == "prefix" else reference)
    assert (code, err) == (0, "")
    assert "first cause  Domain: no memory" in out


def test_an_ambiguous_prefix_is_refused_with_those_it_may_mean(
    cli: Cli, studio: RecordingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uuid

    made = iter(range(100))
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=(0xABCDEF << 104) | next(made)))
    studio.record(failing, name="one")
    studio.record(failing, name="two")
    code, _out, err = cli("show", "abcdef")
    assert code == 2
    assert "the beginning of several operations' ids: 1 (toy, abcdef" in err


def test_every_look_takes_an_exported_file_and_opens_no_database(cli: Cli, recorded: Recording, tmp_path: Path) -> None:
    assert recorded.operation.number == 1
    file = str(tmp_path / "a.vfrec")
    assert cli("export", "1", "-o", file)[0] == 0
    elsewhere = tmp_path / "elsewhere"
    commands = ["show", "events", "timeline", "graph", "why", "left", "verify"]
    answers = {name: cli(name, file, state_dir=elsewhere) for name in commands}
    answers["task"] = cli("task", file, "Domain", state_dir=elsewhere)
    answers["--file"] = cli("task", "--file", file, "Domain", state_dir=elsewhere)
    for name, (code, out, err) in answers.items():
        assert (name, code, err) == (name, 0, "")
        assert out
    assert answers["task"] == answers["--file"]
    assert not (elsewhere / "virtflow.db").exists()


def test_the_words_after_last_may_be_a_task(cli: Cli, recorded: Recording) -> None:
    assert recorded.operation.number == 1
    assert cli("task", "--last", "Domain") == cli("task", "1", "Domain")
    assert cli("why", "--last", "Finish") == cli("why", "1", "Finish")
    assert "why operation 1" in cli("why", "--last")[1]


def test_data_is_had_in_cliff_s_formats(cli: Cli, recorded: Recording) -> None:
    shown = json.loads(cli("show", "1", "-f", "json")[1])
    assert shown["first_cause"]["task"] == "Domain"
    task = json.loads(cli("task", "1", "Domain", "-f", "json")[1])
    labels = {each["argument"]: each["label"] for each in task["attempts"][0]["inputs"]}
    assert labels == {"disk": "recorded", "failures": "not recorded"}
    events = list(csv.DictReader(io.StringIO(cli("events", "1", "--format", "csv")[1])))
    assert [int(event["number"]) for event in events] == list(range(1, len(recorded.events) + 1))
    left = json.loads(cli("left", "1", "--all", "-f", "json")[1])
    assert [(each["recorded"], each["live"]) for each in left] == [("CLEARED", "gone")]


def test_following_ends_when_the_operation_is_over(cli: Cli, recorded: Recording) -> None:
    code, out, _err = cli("events", "1", "-f")
    assert code == 0
    assert len(out.splitlines()) == len(recorded.events)
    code, out, _err = cli("events", "1", "-f", "--format", "json", "--task", "Domain")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["RUNNING", "FAILURE", "REVERTING", "REVERTED"]


def test_what_was_imported_is_found_by_its_id_and_never_asked_live(
    cli: Cli, recorded: Recording, tmp_path: Path
) -> None:
    cli("export", "1", "-o", str(tmp_path / "a.vfrec"))
    elsewhere = tmp_path / "elsewhere"
    assert cli("import", str(tmp_path / "a.vfrec"), state_dir=elsewhere)[0] == 0
    prefix = recorded.operation.id[:8]
    assert "no memory" in cli("show", prefix, state_dir=elsewhere)[1]
    left = json.loads(cli("left", prefix, "--all", "-f", "json", state_dir=elsewhere)[1])
    assert {each["live"] for each in left} == {"not checked"}
    assert cli("import", str(tmp_path / "a.vfrec"), state_dir=elsewhere)[0] == 4
    assert cli("events", prefix, "-f", state_dir=elsewhere)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("show", "99"), 3, "operation '99' not found"),
        (("show", "abcd"), 3, "not found"),
        (("show", "no/such"), 2, "no such file"),
        (("show",), 2, "give one of"),
        (("show", "1", "--last"), 2, "give one of"),
        (("task", "1"), 2, "give the NAME of a task"),
        (("task", "1", "Nope"), 3, "task 'Nope' not found"),
        (("why", "1", "Nope"), 3, "task 'Nope' not found"),
        (("events", "1", "--task", "Nope"), 3, "task 'Nope' not found"),
        (("verify", "/etc/passwd"), 2, "not a recording of virtflow"),
        (("import", "/dev/zero"), 2, "not a regular file"),
        (("export", "1", "-o", "/nowhere/at/all"), 1, "cannot write"),
        (("graph", "1", "-o", "/nowhere/at/all"), 1, "cannot write"),
        (("show", "../../../etc/passwd"), 2, "cannot read recording"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(
    cli: Cli, recorded: Recording, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    assert recorded.operation.number == 1
    found, out, err = cli(*arguments)
    assert complaint in err
    assert err.startswith("virtflow: error: ")
    assert err.count("\n") == 1
    assert (found > 0, out) == (True, "")
    assert found in (code, 4)


LOOKS = (
    *(["show"], ["show", "-f", "json"], ["events"], ["timeline"], ["why"], ["left"]),
    *(["graph"], ["graph", "--as", "svg"], ["graph", "--as", "dot"]),
)


def mutate(plain: Any, chance: random.Random) -> None:
    """Change one thing somewhere in it, in place."""
    spots: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            spots.append((value, key))
            if isinstance(entry, dict | list):
                collect(entry)

    collect(plain)
    container, key = chance.choice(spots)
    old = container[key]
    hostile: list[Any] = [None, "", "\x1b[2J\u202e", -1, 2**70, 1e300, [], {}, [[[]]], True, "x" * 5000]
    hostile += [{"failure": 7}, {"failure": {"causes": 1}}, {"debt": {}}, {"result": {"a": [1]}}, {"graph": 1}]
    if isinstance(old, list) and old and chance.random() < 0.5:
        how = chance.randrange(3)
        old[:] = (old[::-1], old[1:], [*old, old[0]])[how]
    else:
        container[key] = chance.choice(hostile)


def test_no_forged_recording_makes_a_look_fail_otherwise_than_in_one_line(
    cli: Cli, recorded: Recording, tmp_path: Path
) -> None:
    chance = random.Random(7)
    accepted = 0
    for round_ in range(120):
        plain = to_plain(recorded)
        for _ in range(chance.randint(1, 3)):
            mutate(plain, chance)
        file = tmp_path / f"{round_}.vfrec"
        file.write_bytes(packed(json.dumps(plain).encode(), recorded.operation.id))
        fits = cli("verify", str(file))[0] == 0
        for words in (*LOOKS, ["task", "--file"], ["why", "--file"]) if fits else (["show"],):
            about = ["Domain"] if "--file" in words else []
            code, out, err = cli(*words, str(file), *about)
            assert code in (0, 2, 3), (round_, words, err)
            assert "internal error" not in err
            assert "\x1b" not in out
            accepted += code == 0
    assert accepted > 50, "hardly anything was looked at"


def test_looking_at_a_file_imports_neither_taskflow_nor_libvirt(cli: Cli, recorded: Recording, tmp_path: Path) -> None:
    import subprocess

    cli("export", "1", "-o", str(tmp_path / "a.vfrec"))
    assert recorded.operation.number == 1
    program = (
        "import sys; from virtflow.cli.main import main; code = main(['replay', 'show', sys.argv[1]]);"
        "print(sorted({'taskflow', 'libvirt', 'networkx', 'rich', 'alembic'} & set(sys.modules))); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.vfrec")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
