"""A recording played: any moment of it, forwards and backwards, with breakpoints and watches."""

from __future__ import annotations

import pytest
from taskflow import retry
from taskflow.flow import Flow
from taskflow.patterns import linear_flow

from virtflow.config import load
from virtflow.engine.flow_driver import Templates
from virtflow.errors import InvalidRequest, NotFound
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.replay.player import CHECKPOINT, Player
from virtflow.replay.player_stage import Code
from virtflow.tasks.segments import OnHost
from virtflow.testing.recordings import RecordingStudio, Step


def segment() -> Flow:
    return linear_flow.Flow("toy.host").add(
        Step("Disk", result={"path": "/disk", "size": 3}, provides="disk"), Step("Domain", needs=("disk",), fails=-1)
    )


def parent() -> Flow:
    return linear_flow.Flow("toy").add(
        Step("Pick", result=HERE, provides="host"),
        OnHost("toy.host", name="There", requires=(), provides=()),
        Step("End"),
    )


HOST = FlowKind("toy.host", 1, lambda _shape: segment())
CODE = Registry((FlowKind("toy", 1, lambda _shape: parent()), HOST))
SERVICES = ("failures", "segments")
HERE = load(env={}).host


@pytest.fixture
def player(studio: RecordingStudio) -> Player:
    """An operation whose segment made a disk, failed at the domain, and was taken back."""
    return Player(studio.record(parent, HOST, note="hello"), Code(Templates(CODE), SERVICES))


def at(player: Player) -> str:
    event = player.event
    return "start" if event is None else f"{event.atom} {event.event}"


def test_it_begins_before_everything_and_agrees_with_todays_code(player: Player) -> None:
    assert (player.position, at(player), player.divergences) == (0, "start", ())
    assert {moment.state for moment in player.tasks} == {"PENDING"}


def test_steps_go_through_every_event_and_back(player: Player) -> None:
    forwards = []
    for _event in player.events:
        player.step()
        forwards.append((at(player), [moment.state for moment in player.tasks]))
    player.step()
    assert player.position == len(player.events)
    backwards = []
    while player.position:
        backwards.append((at(player), [moment.state for moment in player.tasks]))
        player.back()
    assert backwards == forwards[::-1]


def test_next_goes_over_a_segment(player: Player) -> None:
    seen = []
    while player.position < len(player.events):
        player.next()
        seen.append(at(player))
    assert seen[:4] == ["Pick RUNNING", "Pick SUCCESS", "There RUNNING", "There FAILURE"]
    assert not any("Disk" in line for line in seen)


def test_a_task_is_gone_to_by_its_name_also_in_its_undo_half(player: Player) -> None:
    player.goto_task("Disk")
    assert at(player) == "Disk RUNNING"
    player.goto_task("Disk", "REVERTED")
    assert at(player) == "Disk REVERTED"
    player.goto_task("toy.host/Domain", "failure")
    assert player.task("Domain")[2].error == "on purpose"
    with pytest.raises(NotFound, match="event 'End started' not found"):
        player.goto_task("End")
    with pytest.raises(NotFound, match="task 'Nothing' not found"):
        player.goto_task("Nothing")


def test_until_looks_only_ahead(player: Player) -> None:
    player.goto_task("Disk", "REVERTED")
    with pytest.raises(NotFound):
        player.until("Disk", "SUCCESS")


def test_what_today_would_do_next_is_what_happens_next(player: Player) -> None:
    player.goto_task("Disk", "SUCCESS")
    assert player.due() == [("toy.host", "Domain", "RUNNING")]
    player.goto_task("Domain", "FAILURE")
    assert player.due() == [("toy.host", "Domain", "REVERTING")]
    assert player.events[player.position].event == "REVERTING"


def test_names_are_what_is_there_at_the_moment(player: Player) -> None:
    assert player.value("disk") is None
    player.goto_task("Domain")
    assert player.value("disk.path") == "/disk"
    assert player.value("request.note == 'hello' and Disk.state == 'SUCCESS' and disk.size > 2")
    assert player.value("host") == HERE
    assert player.value("event.task") == "Domain"
    assert dict(player.arguments("Domain"))["disk"] == {"path": "/disk", "size": 3}
    player.goto_task("Disk", "REVERTED")
    assert player.value("disk") is None
    assert player.value("nothing.of[0].this") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("__import__('os')", "call is not allowed"),
        ("disk.path + 1", "binop is not allowed"),
        ("[x for x in y]", "listcomp is not allowed"),
        ("lambda: 1", "lambda is not allowed"),
        ("disk.path ==", "it is not an expression"),
        ("(" * 3000, "it is not an expression"),
        ("a or " * 200 + "a", "it is longer than 500 characters"),
        ("b'x'", "only text, numbers, True, False and None are values"),
    ],
)
def test_an_expression_can_only_name_and_compare(player: Player, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        player.value(text)
    assert reason in str(error.value)


def test_continue_stops_at_breakpoints_and_rcontinue_on_the_way_back(player: Player) -> None:
    player.break_at("Disk")
    player.break_at(event="FAILURE")
    stops = [(player.run(), at(player)) for _ in range(4)]
    assert stops == [
        ("breakpoint 1: Disk", "Disk RUNNING"),
        ("breakpoint 2: FAILURE", "Domain FAILURE"),
        ("breakpoint 1: Disk", "Disk REVERTING"),
        ("breakpoint 2: FAILURE", "There FAILURE"),
    ]
    assert player.run() == "the end"
    assert [(player.run_back(), at(player)) for _ in range(4)] == stops[::-1]
    assert player.run_back() == "the start"
    assert player.position == 0


def test_breakpoints_can_be_positions_and_expressions_and_can_be_removed(player: Player) -> None:
    first, second = player.break_at(position=3), player.break_if("Disk.state == 'SUCCESS'")
    assert (player.run(), player.position) == ("breakpoint 1: event 3", 3)
    assert (player.run(), at(player)) == ("breakpoint 2: if Disk.state == 'SUCCESS'", "Disk SUCCESS")
    assert player.remove(first.number)
    assert player.remove(second.number)
    assert not player.remove(second.number)
    assert player.run() == "the end"


def test_a_watch_stops_where_its_value_changes_in_both_directions(player: Player) -> None:
    player.watch("disk.path")
    assert (player.run(), at(player)) == ("watch 1: disk.path was None, is '/disk'", "Disk SUCCESS")
    assert (player.run(), at(player)) == ("watch 1: disk.path was '/disk', is None", "Disk REVERTING")
    assert player.run() == "the end"
    assert player.run_back().startswith("watch 1")
    assert at(player) == "Disk REVERTING"
    player.run_back()
    assert at(player) == "Disk SUCCESS"


def test_where_todays_code_decides_differently_is_known_at_once_and_shown_at_its_moment(
    studio: RecordingStudio,
) -> None:
    recording = studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain")))
    today = Registry((FlowKind("toy", 1, lambda _: linear_flow.Flow("toy").add(Step("Domain"), Step("Disk"))),))
    player = Player(recording, Code(Templates(today), SERVICES))
    assert [(each.what, each.task) for each in player.divergences][-1] == ("decision", "Disk")
    assert player.parted == []
    player.goto_task("Disk")
    assert "it would wait for Domain" in str(player.parted[-1])


def long_operation(studio: RecordingStudio, attempts: int) -> Player:
    """``attempts`` times four tasks and their reverts."""

    def build() -> Flow:
        steps = [Step(name) for name in "abc"]
        return linear_flow.Flow("toy", retry=retry.Times(attempts, name="Again")).add(*steps, Step("d", fails=-1))

    registry = Registry((FlowKind("toy", 1, lambda _shape: build()),))
    return Player(studio.record(build), Code(Templates(registry), SERVICES))


def test_no_moment_of_a_long_recording_costs_more_than_the_way_from_a_checkpoint(studio: RecordingStudio) -> None:
    player = long_operation(studio, 40)
    assert len(player.events) > 3 * CHECKPOINT
    assert player.divergences == ()
    for position in (len(player.events), 1, len(player.events) // 2, CHECKPOINT - 1, len(player.events) - 1):
        before = player.applied
        player.goto(position)
        assert player.position == position
        assert player.applied - before <= CHECKPOINT


def test_a_moment_is_the_same_however_one_came_there(studio: RecordingStudio) -> None:
    player = long_operation(studio, 40)
    place = CHECKPOINT + 7
    player.goto(place)
    there = [vars(moment) for moment in player.tasks], player.due()
    player.goto(0)
    for _ in range(place):
        player.step()
    assert ([vars(moment) for moment in player.tasks], player.due()) == there
    player.goto(len(player.events))
    player.goto(place)
    assert ([vars(moment) for moment in player.tasks], player.due()) == there
