"""``virtflow replay play`` with commands from a file: what it prints, and that a mistake is one line."""

from __future__ import annotations

import io

import pytest
from taskflow.patterns import linear_flow

from virtflow.cli.replay_play import PlayLoop
from virtflow.engine.flow_driver import Templates
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.replay.player import Player
from virtflow.replay.player_stage import Code
from virtflow.testing.recordings import RecordingStudio, Step


@pytest.fixture
def player(studio: RecordingStudio) -> Player:
    def build() -> linear_flow.Flow:
        return linear_flow.Flow("toy").add(
            Step("Disk", result={"path": "/disk"}, provides="disk"),
            Step("Domain", needs=("disk",), fails=-1, message="no room\x1b[2J"),
        )

    code = Code(Templates(Registry((FlowKind("toy", 1, lambda _shape: build()),))), ("failures",))
    return Player(studio.record(build), code)


def play(player: Player, *commands: str) -> list[str]:
    out = io.StringIO()
    PlayLoop(player, out, interactive=False, commands=io.StringIO("\n".join(commands) + "\n")).cmdloop()
    return out.getvalue().splitlines()


def test_it_tells_what_is_replayed_the_cause_and_that_todays_code_agrees(player: Player) -> None:
    assert play(player) == [
        "replaying operation 1: toy toy:thing, REVERTED (recorded); 10 events",
        "cause     recorded  Domain: no room [2J",
        "code      derived   today's code decides as recorded, from the first event to the last",
    ]


def test_moving_shows_the_event_by_the_name_of_its_task(player: Player) -> None:
    lines = play(player, "goto Domain; step; back; next; goto end; goto start")[3:]
    assert [line.partition("recorded")[2].strip() for line in lines[:5]] == [
        "toy/Domain RUNNING",
        "toy/Domain FAILURE: no room [2J",
        "toy/Domain RUNNING",
        "toy/Domain FAILURE: no room [2J",
        "flow toy REVERTED",
    ]
    assert lines[5] == "event 0 of 10: before everything"


def test_where_and_print_label_what_is_recorded_and_what_is_derived(player: Player) -> None:
    lines = play(
        player, "goto Disk SUCCESS", "where", "print disk.path", "until Domain failure", "print", "print Disk"
    )[4:]
    assert lines[0].split() == ["toy", "recorded", "RUNNING", "on", player.recording.flows[0].host]
    assert lines[1].split() == ["[✓Disk]", ">", "Domain"]
    assert lines[2].split() == ["next", "derived", "run", "Domain", "(toy)"]
    assert lines[3] == 'recorded  "/disk"'
    assert lines[5].startswith("recorded  toy/Domain FAILURE on ")
    assert 'derived   input disk = {"path": "/disk"}' in lines
    assert "recorded  error: no room [2J" in lines
    assert 'recorded  result = {"path": "/disk"}' in lines


def test_breakpoints_and_watches_stop_it_in_both_directions(player: Player) -> None:
    lines = play(
        player, "break Domain", "watch disk.path", "break", "continue", "c", "rcontinue", "delete 1", "delete 9"
    )[3:]
    assert lines[0] == "breakpoint 1: Domain"
    assert lines[1] == "watch 2: disk.path = null"
    assert lines[2:4] == ["  1  Domain", "  2  watch disk.path"]
    assert [line for line in lines if line.startswith("stopped")] == [
        "stopped at watch 2: disk.path was None, is '/disk'",
        "stopped at breakpoint 1: Domain",
        "stopped at watch 2: disk.path was None, is '/disk'",
    ]
    assert lines[-1] == "error: there is no breakpoint 9"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("frobnicate", "error: 'frobnicate' is not a command; try help"),
        ("goto Nowhere", "error: task 'Nowhere' not found"),
        ("goto", "error: usage: goto TASK [STATE] | start | end | N"),
        ("goto Disk 'unbalanced", "error: usage: goto TASK [STATE] | start | end | N"),
        ("goto Disk HAPPY", "error: state 'HAPPY': must be one of"),
        ("step x", "error: 'x' is not a whole number"),
        (
            "print __import__('os').system('id')",
            "error: expression \"__import__('os').system('id')\": call is not allowed",
        ),
        ("until Domain.__class__(", "error: expression 'Domain.__class__(': it is not an expression"),
        ("break if 1 +", "error: expression '1 +': it is not an expression"),
        ("print", "error: print what? A task, or an expression over names"),
    ],
)
def test_a_mistake_is_one_line_and_the_prompt_comes_back(player: Player, command: str, error: str) -> None:
    lines = play(player, command, "list 2")[3:]
    assert lines[0].startswith(error)
    assert lines[1].split()[:3] == ["event", "1", "of"]


def test_a_divergence_is_told_at_once_and_again_where_it_happens(studio: RecordingStudio) -> None:
    recording = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain")))
    today = Registry((FlowKind("toy", 1, lambda _: linear_flow.Flow("toy").add(Step("Overlay"), Step("Domain"))),))
    lines = play(Player(recording, Code(Templates(today), ("failures",))), "step")
    told = "toy/Disk: renamed: Disk is Overlay today"
    assert lines[1:] == [f"diverges  derived   at event 1: {told}", lines[2], f"diverges  derived   {told}"]
