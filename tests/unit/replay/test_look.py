"""The screens: what is read off them by somebody who was asleep when it failed."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from taskflow import retry
from taskflow.patterns import linear_flow, unordered_flow

from virtflow.errors import NotFound
from virtflow.flows.kind import FlowKind
from virtflow.replay.look.drawing import dot, mermaid, svg
from virtflow.replay.look.gantt import gantt
from virtflow.replay.look.left import recorded_only
from virtflow.replay.look.lines import Branch
from virtflow.replay.look.log_lines import log_lines
from virtflow.replay.look.task_page import task_dict, task_page
from virtflow.replay.look.tasks import in_order
from virtflow.replay.look.tree import summary, tree
from virtflow.replay.look.why import Reason, why
from virtflow.replay.recording import Recording
from virtflow.tasks.segments import OnHost
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest


def failing() -> Any:
    """Disk and Tap are taken back (Tap will not), Domain fails, Finish is never reached."""
    return linear_flow.Flow("toy").add(
        Step("Disk", result="/disk", provides="disk", makes=[("file", "/disk")]),
        Step("Tap", makes=[("tap", "tap0")], revert_fails=-1),
        Step("Domain", needs=["disk"], fails=-1, message="no memory\x1b[31m left"),
        Step("Finish"),
    )


def on_two_hosts() -> Any:
    hosts = retry.ForEach([{"host": "vm"}], name="NextHost", provides="choice")
    build = OnHost("toy.host", name="Build", requires=("operation",), provides=("xml",))
    choose = Step("Choose", needs=["choice"], result="vm", provides="host")
    return linear_flow.Flow("toy", retry=hosts).add(choose, build, Step("Finish", needs=["xml"]))


def segment(fails: int) -> FlowKind:
    def build(_shape: Any) -> Any:
        return linear_flow.Flow("toy.host").add(
            Step("MakeDisk", needs=["operation"], result="/d", provides="disk"),
            Step("Define", needs=["disk"], fails=fails, message="refused", result="<domain/>", provides="xml"),
        )

    return FlowKind("toy.host", 1, build, outputs=("xml",))


def lines(branch: Branch) -> list[str]:
    return list(branch.plain())


def find(branch: Branch, text: str) -> str:
    found = [line for line in lines(branch) if text in line]
    assert found, f"{text!r} is not in\n" + "\n".join(lines(branch))
    return found[0]


def test_the_first_thing_shown_of_a_failure_is_its_first_cause(studio: RecordingStudio) -> None:
    screen = tree(studio.record(failing))
    shown = lines(screen)
    assert "REVERTED_WITH_DEBT" in shown[0]
    assert shown[1].strip() == "first cause  Domain: no memory [31m left  (derived)"
    assert "attempt 1" in shown[2]


def test_both_lanes_of_every_task_are_shown(studio: RecordingStudio) -> None:
    screen = tree(studio.record(failing))
    assert re.search(r"✔ Disk +\S+ m?s   ↩ \S+ m?s$", find(screen, " Disk "))
    assert "NOT TAKEN BACK: RuntimeError: cannot take back Tap" in find(screen, "✔ Tap")
    assert re.search(r"✘ Domain .* ↩ .* no memory \[31m left$", find(screen, "✘ Domain"))
    assert "· Finish" in find(screen, "not reached")


def test_no_control_character_of_a_recording_reaches_the_terminal(studio: RecordingStudio) -> None:
    recording = studio.record(failing)
    screens = [tree(recording), gantt(recording, 100), task_page(recording, "Domain")]
    text = "\n".join(line for screen in screens for line in lines(screen))
    assert "\x1b" not in text
    assert all("\x1b" not in reason.text for reason in why(recording))


def test_a_segment_stands_below_the_task_that_ran_it(studio: RecordingStudio) -> None:
    recording = studio.record(on_two_hosts, segment(0))
    assert recording.operation.outcome == "SUCCESS", recording.operation.error
    shown = [line for line in lines(tree(recording)) if "owner" not in line]
    places = {name: next(i for i, line in enumerate(shown) if name in line) for name in ("Build", "MakeDisk", "Finish")}
    assert places["Build"] < places["MakeDisk"] < places["Finish"]
    indent = [len(shown[places[name]]) - len(shown[places[name]].lstrip()) for name in ("Build", "MakeDisk")]
    assert indent[0] < indent[1]
    build = next(task for task in summary(recording)["flows"][0]["tasks"] if task["name"] == "Build")
    assert [inner["name"] for inner in build["segments"][0]["tasks"]] == ["MakeDisk", "Define"]


def test_a_failure_in_a_segment_is_the_first_cause_of_its_operation(studio: RecordingStudio) -> None:
    recording = studio.record(on_two_hosts, segment(-1))
    assert "Define: refused" in find(tree(recording), "first cause")
    cause = summary(recording)["first_cause"]
    assert (cause["task"], cause["flow"], cause["label"]) == ("Define", "toy.host", "derived")


def test_five_hundred_tasks_fit_on_a_screen_and_all_of_them_can_be_had(studio: RecordingStudio) -> None:
    steps = [Step(f"Task{number}", fails=-1 if number == 400 else 0) for number in range(500)]
    recording = studio.record(lambda: linear_flow.Flow("toy").add(*steps))
    begun = time.process_time()
    assert len(lines(tree(recording))) < 15
    assert len(lines(gantt(recording, 100))) < 10
    find(tree(recording), "400 tasks, Task0 to Task399")
    assert len(lines(tree(recording, everything=True))) > 500
    assert len(lines(gantt(recording, 100, everything=True))) > 400
    assert len(svg(recording)) > 500
    assert time.process_time() - begun < 10


def test_a_timeline_marks_failures_and_cuts_pauses(studio: RecordingStudio) -> None:
    chart = gantt(studio.record(failing), 80)
    assert "┄" in find(chart, " Disk ")
    assert "✘" in find(chart, " Domain ")
    assert all(len(line) <= 84 for line in lines(chart)[1:])

    class Killed(BaseException):
        pass

    def die() -> None:
        if not died:
            died.append(True)
            raise Killed

    died: list[bool] = []
    runner = studio.runner(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", does=die)))
    with pytest.raises(Killed):
        runner.run(ToyRequest(name="other"))
    runner.resume("--last")
    assert "⚡" in find(gantt(studio.read(), 80), " Domain ")
    assert "its process died" not in find(tree(studio.read()), "✔ Domain")
    assert "⚡ attempt 1" in find(tree(studio.read()), "⚡")


def test_a_task_s_page_says_where_each_value_came_from(studio: RecordingStudio) -> None:
    page = task_page(studio.record(failing), "domain")
    assert find(page, "disk = ").strip() == 'disk = "/disk"  (recorded; derived: result of Disk)'
    assert "not recorded" in find(page, "failures = ")
    find(page, "error  no memory")
    find(page, "in execute")
    plain = task_dict(studio.read(), "Tap")
    assert ("tap", "DEBT") in [(entry["kind"], entry["state"]) for entry in plain["ledger"]]
    assert plain["attempts"][-1]["state"] == "DEBT"


def test_a_page_of_a_task_that_is_not_there_is_refused(studio: RecordingStudio) -> None:
    with pytest.raises(NotFound, match="task 'Nope' not found"):
        task_page(studio.record(failing), "Nope")


def texts(reasons: list[Reason]) -> str:
    return "\n".join(f"{reason.text} [{reason.label}]" for reason in reasons)


def test_why_names_what_stands_before_a_task_and_what_went_wrong_there(studio: RecordingStudio) -> None:
    recording = studio.record(failing)
    blocked = texts(why(recording, "Finish"))
    assert "Finish has not run [recorded]" in blocked
    assert "it comes after Domain, which is not done [derived]" in blocked
    assert "Domain failed: no memory" in blocked
    assert "because Domain failed" in texts(why(recording, "Disk"))
    assert "retry-revert" in texts(why(recording, "Tap"))
    assert "could not be taken back [recorded]" in texts(why(recording))


def test_why_of_a_running_operation_asks_who_runs_it(studio: RecordingStudio) -> None:
    seen: list[str] = []

    def look() -> None:
        recording = studio.read()
        seen.append(texts(why(recording, owner=lambda _subject: "somebody runs it")))
        seen.append(texts(why(recording, "Finish", owner=lambda _subject: "somebody runs it")))

    studio.record(lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain", does=look), Step("Finish")))
    assert "Domain of toy runs on" in seen[0]
    assert "somebody runs it [live]" in seen[0]
    assert "Domain is RUNNING since" in seen[1]


def test_why_of_an_undone_operation_says_that_it_was_asked_for(studio: RecordingStudio) -> None:
    build = lambda: linear_flow.Flow("toy").add(Step("Disk"), Step("Domain"))  # noqa: E731
    studio.record(build)
    studio.runner(build).undo("--last")
    assert "because the operation was undone on request [recorded]" in texts(why(studio.read(), "Disk"))
    assert "undone by" in find(tree(studio.read()), "epoch 2")


def test_of_a_file_only_what_was_recorded_is_listed_as_left(studio: RecordingStudio) -> None:
    things = {thing.kind: thing for thing in recorded_only(studio.record(failing))}
    assert (things["file"].recorded, things["file"].live, things["file"].matters) == ("CLEARED", "not checked", False)
    assert (things["tap"].recorded, things["tap"].matters) == ("DEBT", True)


def beside() -> Any:
    both = unordered_flow.Flow("beside").add(Step('Left"><x>'), Step("Right", fails=-1))
    return linear_flow.Flow("toy").add(Step("Begin"), both, Step("End"))


def test_drawings_have_every_task_and_survive_hostile_names(studio: RecordingStudio) -> None:
    recording = studio.record(beside)
    picture = ElementTree.fromstring(svg(recording))
    shown = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Begin", 'Left"><x>', "Right", "End"} <= set(shown)
    assert '"0/Left\\"><x>"' in dot(recording)
    assert "Left#34;#62;#60;x#62;" in mermaid(recording)
    assert in_order(recording.flows[0].graph)[0] == "Begin"


def test_a_drawing_of_an_earlier_moment_has_the_states_of_then(studio: RecordingStudio) -> None:
    recording = studio.record(beside)
    assert "FAILURE" not in mermaid(recording)
    failed = next(n for n, event in enumerate(recording.events, 1) if event.event == "FAILURE")
    assert "FAILURE" in mermaid(recording, failed)
    assert "class t0_0,t0_1,t0_2,t0_3 PENDING" in mermaid(recording, 0)


def test_the_log_around_a_time_is_found_and_none_is_no_problem(tmp_path: Path) -> None:
    log = tmp_path / "virtflow.log"
    moment = int(time.mktime((2026, 11, 21, 3, 0, 10, 0, 0, -1))) * 1_000_000
    log.write_text(
        "2026-11-21 03:00:00,000 INFO early\n"
        "2026-11-21 03:00:09,500 WARNING here\n  and its second line\n"
        f"2026-11-21 03:00:10,000 INFO [1 main] [{uuid.uuid4()} spawn/FetchBase h1] virtflow: of another operation\n"
        "2026-11-21 03:00:30,000 INFO late\n"
    )
    ours = str(uuid.uuid4())
    assert log_lines(log, moment, moment, ours) == ["2026-11-21 03:00:09,500 WARNING here", "  and its second line"]
    assert log_lines(log, moment, moment, ours, most=1)[1] == "... and 1 more lines"
    assert log_lines(None, moment, moment, ours) == log_lines(tmp_path / "none", moment, moment, ours) == []


def test_an_operation_that_has_not_begun_can_be_looked_at(studio: RecordingStudio) -> None:
    from dataclasses import replace

    recording = studio.record(failing)
    empty: Recording = replace(recording, flows=(), ledger=())
    assert lines(tree(empty))
    assert lines(gantt(empty, 80)) == ["nothing has run yet"]
    assert why(empty)
    assert svg(empty)
    assert summary(empty)["flows"] == []
