"""The report's view of a recording, and the page it becomes."""

from __future__ import annotations

import configparser
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replay import report_recordings as stories
from virtflow.errors import AlreadyExists, HostStorageError
from virtflow.replay.recording import Recording
from virtflow.replay.redacting import redact
from virtflow.replay.report import page as page_module
from virtflow.replay.report.documents import documents_in
from virtflow.replay.report.page import SCRIPTS, SIZE, embedded, page, write
from virtflow.replay.report.values import Values
from virtflow.replay.report.view import view

PACKAGE = Path(page_module.__file__).parent
REPOSITORY = Path(__file__).parents[3]


def shown(recording: Recording) -> dict[str, Any]:
    """The view model, as a page would read it."""
    return json.loads(json.dumps(view(recording, 10_000)))  # type: ignore[no-any-return]


def task(model: dict[str, Any], name: str, flow: int | None = None) -> dict[str, Any]:
    return next(t for t in model["tasks"] if t["name"] == name and flow in (None, t["flow"]))


def states(model: dict[str, Any], name: str, position: int, flow: int | None = None) -> str:
    """The state of a task when so many events have happened."""
    past = [state for index, state in task(model, name, flow)["moments"] if index < position]
    return str(model["states"][past[-1]]) if past else "pending"


class Scripts(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


# -- what the page shows ----------------------------------------------------------------------------------------------


def test_a_failed_operation_opens_at_its_first_cause() -> None:
    model = shown(stories.failed())
    first = model["causes"][0]
    assert model["tasks"][first["task"]]["name"] == "StartDomain"
    assert first["text"] == stories.CAUSE
    assert model["first"] == first["task"]
    assert model["opening"] == first["event"] + 1
    assert states(model, "StartDomain", model["opening"]) == "failed"
    assert [model["tasks"][cause["task"]]["name"] for cause in model["causes"]] == ["StartDomain", "SpawnOnHost"]


def test_an_operation_that_succeeded_opens_at_its_end() -> None:
    model = shown(stories.success())
    assert model["opening"] == len(model["events"])
    assert model["causes"] == []
    assert {states(model, t["name"], model["opening"]) for t in model["tasks"]} == {"done"}


def test_every_state_can_be_shown_at_every_moment() -> None:
    model = shown(stories.failed())
    begun = task(model, "FetchBase")["spans"][0]
    assert states(model, "FetchBase", begun["first"]) == "pending"
    assert states(model, "FetchBase", begun["first"] + 1) == "running"
    assert states(model, "FetchBase", begun["last"] + 1) == "done"
    assert states(model, "FetchBase", len(model["events"])) == "undone"
    assert states(model, "WaitRunning", len(model["events"])) == "pending"


def test_undo_has_spans_of_its_own() -> None:
    spans = task(shown(stories.failed()), "DefineDomain")["spans"]
    assert [(span["undo"], span["state"]) for span in spans] == [(False, "done"), (True, "undone")]
    assert spans[0]["to"] <= spans[1]["from"] <= spans[1]["to"]


def test_what_a_killed_process_was_doing_is_cut_off_where_the_next_one_takes_over() -> None:
    model = shown(stories.resumed())
    first, second = task(model, "FetchBase")["spans"]
    assert (first["state"], first["epoch"], second["state"], second["epoch"]) == ("cut", 1, "done", 2)
    assert states(model, "FetchBase", first["last"] + 1) == "cut"
    assert [(owner["epoch"], owner["process"]) for owner in model["owners"]] == [
        (1, "process 4711"),
        (2, "process 5902"),
    ]


def test_hours_in_which_nothing_ran_are_folded() -> None:
    model = shown(stories.resumed())
    ((since, until),) = model["axis"]["gaps"]
    assert until - since > 3_600_000_000
    knots = dict(map(tuple, model["axis"]["knots"]))
    assert knots[until] - knots[since] < 0.1


def test_the_ribbon_says_whose_every_event_is() -> None:
    model = shown(stories.rescheduled())
    assert [model["hosts"][piece["host"]] for piece in model["ribbon"]] == ["kvm-01", "kvm-02", "kvm-01"]
    assert model["ribbon"][0]["first"] == 0
    assert model["ribbon"][-1]["last"] == len(model["events"]) - 1
    for piece, after in zip(model["ribbon"], model["ribbon"][1:], strict=False):
        assert after["first"] == piece["last"] + 1


def test_failures_that_were_got_over_are_not_the_cause_of_anything() -> None:
    model = shown(stories.rescheduled())
    assert model["overIt"]
    assert len(model["causes"]) == 2
    assert model["opening"] == len(model["events"])


def test_a_segment_stands_below_the_task_that_ran_it() -> None:
    model = shown(stories.rescheduled())
    runner = task(model, "SpawnOnHost")
    after = task(model, "CommitQuota")
    first, second = model["flows"][1]["frame"], model["flows"][2]["frame"]
    assert runner["y"] < first["y"] < first["y"] + first["height"] <= second["y"]
    assert second["y"] + second["height"] <= after["y"]


def test_inputs_say_where_they_came_from_and_what_they_were() -> None:
    model = shown(stories.success())
    given = {name: (origin, value) for name, origin, value in task(model, "DefineDomain")["spans"][0]["inputs"]}
    origin, value = given["domain_xml"]
    assert model["tasks"][origin]["name"] == "BuildDomainXml"
    assert model["values"][value].startswith("<domain")
    assert given["hypervisor"] == ("service", -1)


def test_the_xml_of_both_attempts_can_be_compared() -> None:
    model = shown(stories.rescheduled())
    labels = [document["label"] for document in model["documents"]]
    assert labels == ["BuildDomainXml on kvm-01", "BuildDomainXml on kvm-02"]
    texts = [model["values"][document["value"]] for document in model["documents"]]
    assert "3c:11:7a" in texts[0]
    assert "3c:11:9e" in texts[1]


def test_the_xml_of_another_operation_can_be_compared_with() -> None:
    model = view(stories.failed(), 10_000, stories.success())
    assert [document["label"] for document in model["documents"]] == ["operation 41: BuildDomainXml", "BuildDomainXml"]


def test_a_debt_is_left_behind_and_named() -> None:
    model = shown(stories.failed(debt="cannot undefine domain: busy"))
    assert model["left"] == "1 thing left behind"
    (left,) = [thing for thing in model["ledger"] if thing["left"]]
    assert (left["kind"], left["error"]) == ("domain", "cannot undefine domain: busy")
    assert states(model, "DefineDomain", len(model["events"])) == "debt"


def test_nothing_left_is_said_and_a_success_has_left_nothing_behind_but_what_was_asked_for() -> None:
    assert shown(stories.failed())["left"] == "Nothing is left behind"
    model = shown(stories.success())
    assert model["left"] is None
    assert [thing["state"] for thing in model["ledger"]] == ["PRESENT"] * 5


def test_a_flow_without_a_recorded_graph_is_shown_in_its_order() -> None:
    recording = stories.success()
    bare = [replace(flow, graph=replace(flow.graph, edges=(), recorded=False)) for flow in recording.flows]
    model = shown(replace(recording, flows=tuple(bare)))
    host = [t for t in model["tasks"] if t["flow"] == 1]
    assert [t["y"] for t in host] == sorted({t["y"] for t in host})
    assert any("graph" in note for note in model["notes"])


def test_an_operation_that_has_not_begun_can_be_shown() -> None:
    recording = stories.success()
    operation = replace(recording.operation, state="ACCEPTED", outcome=None, started_at=None, finished_at=None)
    model = shown(replace(recording, operation=operation, flows=(), ledger=()))
    assert (model["tasks"], model["events"], model["left"]) == ([], [], None)
    assert page(replace(recording, operation=operation, flows=(), ledger=()))


# -- values -----------------------------------------------------------------------------------------------------------


def test_equal_values_are_carried_once() -> None:
    values = Values(100)
    assert values.add({"a": [1]}) == values.add({"a": [1]})
    assert values.add({"a": [1]}) != values.add({"a": [True]})


def test_long_texts_are_cut_and_it_is_said() -> None:
    values = Values(10)
    values.add({"log": "0123456789abcdef"})
    assert values.table == [{"log": "0123456789 ... (6 more characters)"}]
    assert values.cut == 1


def test_values_nested_without_end_are_cut() -> None:
    value: Any = "deep"
    for _ in range(500):
        value = [value]
    assert "deep" not in json.dumps(Values(100).shown(value))


def test_xml_is_found_wherever_it_is() -> None:
    xml = "<domain>\n</domain>"
    assert documents_in({"made": [{"xml": xml}], "not": "<5 GiB"}) == [("made[0].xml", xml)]


# -- the page ---------------------------------------------------------------------------------------------------------


def test_hostile_text_does_not_become_markup() -> None:
    usual, hostile = Scripts(page(stories.success())), Scripts(page(stories.hostile()))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in usual.tags]
    data, script = hostile.scripts
    assert json.loads(data)["tasks"][0]["name"] == stories.HOSTILE
    assert stories.HOSTILE not in script


def test_embedded_data_is_ascii_without_anything_that_html_knows() -> None:
    text = embedded({"text": "</script>&<!--\u2028é\ud800"})
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"text": "</script>&<!--\u2028é\ud800"}


def test_the_page_asks_nobody_for_anything() -> None:
    text = page(stories.failed())
    for tag, attributes in Scripts(text).tags:
        assert not {"src", "srcset", "action", "style", "background"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    tags = Scripts(page(stories.success())).tags
    policy = next(a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv")) or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


def test_scripts_make_text_only_and_set_no_markup() -> None:
    for name in SCRIPTS:
        text = (PACKAGE / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|fetch\(", text)


def test_five_hundred_tasks_stay_under_two_megabytes() -> None:
    assert len(page(stories.many(500, "x" * 20_000))) < SIZE


def test_a_page_that_would_be_too_large_cuts_its_texts() -> None:
    recording = stories.many(60)
    (flow,) = recording.flows
    texts = iter(range(10**6))
    events = tuple(
        replace(event, data={"result": f"{next(texts)} " + "y" * 50_000}) if event.event == "SUCCESS" else event
        for event in flow.events
    )
    text = page(replace(recording, flows=(replace(flow, events=events),)))
    assert len(text) < SIZE
    assert "Long texts are cut" in text


def test_a_masked_secret_is_in_no_page() -> None:
    recording = stories.failed()
    operation = replace(recording.operation, request={"name": "web1", "admin_password": "swordfish-77"})
    text = page(redact(replace(recording, operation=operation), [b"swordfish-77"]))
    assert "swordfish-77" not in text
    assert "Secrets are masked." in text


def test_a_page_is_written_whole_for_its_owner_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    size = write(stories.success(), target)
    assert target.stat().st_size == size
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AlreadyExists):
        write(stories.failed(), target)
    write(stories.failed(), target, replace_existing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(HostStorageError):
        write(stories.success(), tmp_path / "absent" / "report.html")


def test_what_the_page_is_made_of_is_shipped() -> None:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    patterns = [p.strip() for p in config["options.package_data"]["virtflow.replay.report"].split(",")]
    shipped = {path.name for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert shipped >= {"report.html", "report.css", *SCRIPTS}
    assert {path.name for path in PACKAGE.glob("*.js")} == set(SCRIPTS)
