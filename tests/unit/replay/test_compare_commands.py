"""``virtflow replay check|diff|stats|play`` from the command line, on recordings in files: no database is needed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.recordings.keeping import HERE
from virtflow.cli.main import Virtflow
from virtflow.replay.files import export, load
from virtflow.replay.recording import from_plain, to_plain

KEPT = HERE / "0.1"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("VIRTFLOW_STATE_DIR", raising=False)

    def run(*words: str) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        code = Virtflow(out, err).run(["--state-dir", str(tmp_path / "state"), *words])
        return Answer(code, out.getvalue(), err.getvalue())

    return run


Cli = Callable[..., Answer]


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """A spawn of a virtflow in which a task had another name."""
    plain = to_plain(load(KEPT / "spawn-succeeded.vfrec"))
    path = tmp_path / "of-old.vfrec"
    text = json.dumps(plain).replace("CreateCowOverlay", "MakeOverlay")
    export(from_plain(json.loads(text)), path)
    return path


def test_recordings_of_this_release_pass_the_gate(cli: Cli) -> None:
    answer = cli("replay", "check", str(KEPT), "-f", "csv", "-c", "divergences")
    assert (answer.code, answer.err) == (0, "")
    assert set(answer.out.split()) == {'"divergences"', "0"}


def test_a_renamed_task_closes_the_gate_and_is_named(cli: Cli, renamed: Path) -> None:
    answer = cli("replay", "check", str(KEPT), str(renamed))
    assert answer.code == 4
    named = "spawn.host/MakeOverlay: renamed: MakeOverlay is CreateCowOverlay today"
    assert answer.err.strip().endswith(f"1 of 7 diverge; {renamed}: {named}")
    assert named in answer.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("check", "nowhere/x.vfrec"), 2, "nowhere/x.vfrec"),
        (("check", "DAMAGED"), 2, "cannot read recording"),
        (("check", "EMPTY"), 2, "no recordings in"),
        (("diff", "DAMAGED", "--last-good"), 2, "cannot read recording"),
        (("diff", "1"), 2, "give two operations, or one and --last-good"),
        (("diff", "77", "78"), 3, "operation '77' not found"),
        (("stats", "tea"), 3, "operation of kind 'tea' not found"),
        (("play", "77"), 3, "operation '77' not found"),
        (("run", "77"), 3, "operation '77' not found"),
        (("fork", "77", "--from", "X"), 3, "operation '77' not found"),
        (("undo-preview", "77"), 3, "operation '77' not found"),
        (("fork", "77"), 2, "--from"),
    ],
)
def test_a_mistake_is_one_clear_line(cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, message: str) -> None:
    (tmp_path / "damaged.vfrec").write_bytes((KEPT / "spawn-undone.vfrec").read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    places = {"DAMAGED": str(tmp_path / "damaged.vfrec"), "EMPTY": str(tmp_path / "empty")}
    answer = cli("replay", *(places.get(word, word) for word in words))
    assert (answer.code, len(answer.err.splitlines())) == (code, 1), answer.err
    assert message in answer.err


def test_a_success_and_a_failure_are_told_apart_by_their_first_divergence(cli: Cli) -> None:
    answer = cli("replay", "diff", str(KEPT / "spawn-succeeded.vfrec"), str(KEPT / "spawn-reverted.vfrec"), "-f", "csv")
    assert answer.code == 0, answer.err
    first = answer.out.splitlines()[1]
    assert first.startswith('"first divergence","StartDomainPaused","spawn.host","SUCCESS","FAILURE: ')
    assert '"input","spawn","request.meta.tier","front"' in answer.out
    assert "<domain" not in answer.out, "of two documents only the lines that differ are shown"


def test_the_same_recording_has_no_differences(cli: Cli) -> None:
    path = str(KEPT / "spawn-undone.vfrec")
    answer = cli("replay", "diff", path, path, "-f", "value")
    assert (answer.code, answer.out.strip()) == (0, "")


def test_a_recording_is_played_from_its_file(cli: Cli) -> None:
    path = str(KEPT / "spawn-reverted.vfrec")
    answer = cli("replay", "play", path, "-c", "goto StartDomainPaused FAILURE; where; print spec.vcpus; rcontinue")
    assert answer.code == 0, answer.err
    assert "recorded  spawn.host/StartDomainPaused FAILURE" in answer.out
    assert "derived   revert StartDomainPaused (spawn.host)" in answer.out
    assert "recorded  1\n" in answer.out
    assert "today's code decides as recorded" in answer.out


def test_a_newer_recording_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "newer.vfrec"
    export(replace(load(KEPT / "spawn-undone.vfrec"), format=2), path)
    answer = cli("replay", "play", str(path))
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
