"""Operations that were recorded by released versions could be in flight when this version is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recordings.keeping import kept
from virtflow.replay.checking import check
from virtflow.replay.files import load
from virtflow.replay.player import Player
from virtflow.replay.player_stage import Code


@pytest.fixture(scope="module")
def code() -> Code:
    return Code.installed()


@pytest.mark.parametrize("path", kept(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_todays_code_decides_as_it_was_recorded(path: Path, code: Code) -> None:
    checked = check(load(path), code)
    assert checked.events > 20
    assert [str(found) for found in checked.divergences] == []


def test_the_recordings_of_the_first_release_are_all_there() -> None:
    names = {path.stem for path in kept() if path.parent.name == "0.1"}
    assert {
        "spawn-succeeded",
        "spawn-reverted",
        "spawn-undone",
        "spawn-resumed",
        "spawn-cancelled",
        "delete-succeeded",
    } <= names


def test_a_kept_recording_can_be_played_without_a_database(code: Code) -> None:
    (path,) = [each for each in kept() if each.stem == "spawn-reverted" and each.parent.name == "0.1"]
    player = Player(load(path), code)
    player.goto_task("StartDomainPaused", "FAILURE")
    assert player.task("DefineDomain")[2].state == "SUCCESS"
    player.goto_task("DefineDomain", "REVERTED")
    assert player.divergences == ()


def test_no_recording_names_the_machine_it_was_made_on() -> None:
    for path in kept():
        recording = load(path)
        assert recording.redacted
        assert "traceback_str='" not in repr(recording).replace("traceback_str=''", "")
        assert str(Path(__file__).parents[3]) not in repr(recording)
