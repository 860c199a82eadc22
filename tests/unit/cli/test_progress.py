from __future__ import annotations

import io
import re

import pytest

from virtflow.cli.live import LiveProgress
from virtflow.cli.progress import PlainProgress, Step, duration, printable, progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STORY = [
    Step("spawn", "ReserveQuota", "RUNNING"),
    Step("spawn", "ReserveQuota", "SUCCESS"),
    Step("build", "FetchBase", "RUNNING"),
    Step("build", "FetchBase", "RUNNING", progress=0.25),
    Step("build", "FetchBase", "RUNNING", progress=0.5),
    Step("build", "FetchBase", "FAILURE", error="disk\nfull \x1b[31m"),
    Step("spawn", "ReserveQuota", "REVERTING"),
    Step("spawn", "ReserveQuota", "REVERTED"),
    Step("spawn", "SelectHost", "RUNNING", attempt=2),
    Step("spawn", "Later", "PENDING"),
]


def test_without_a_terminal_there_is_one_plain_line_per_transition() -> None:
    out = io.StringIO()
    with progress_for(out, "spawn instance:web1") as progress:
        assert isinstance(progress, PlainProgress)
        for event in STORY:
            progress(event)
    lines = [re.sub(r"^\d\d:\d\d:\d\d |\d+ ms", "", line) for line in out.getvalue().splitlines()]
    assert lines == [
        "ReserveQuota: running",
        "ReserveQuota: done ()",
        "FetchBase: running",
        "FetchBase: failed (): disk full [31m",
        "ReserveQuota: reverting",
        "ReserveQuota: reverted ()",
        "SelectHost: running (attempt 2)",
    ]


def drawn(monkeypatch: pytest.MonkeyPatch, story: list[Step]) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with progress_for(out, "spawn instance:web1") as progress:
        assert isinstance(progress, LiveProgress)
        for event in story:
            progress(event)
    return out.getvalue()


def test_on_a_terminal_a_tree_shows_every_task_under_its_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn(monkeypatch, STORY))
    assert "spawn instance:web1" in text
    assert re.search(r"├── spawn\s+│   ├── ↩ ReserveQuota .* reverted\s+│   └── ▶ SelectHost", text)
    assert re.search(r"└── build\s+└── ✘ FetchBase .* failed: disk full \[31m", text)
    assert "Later" not in text


def test_why_a_task_failed_stays_visible_when_it_is_reverted(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [("FAILURE", "no memory"), ("REVERTING", None), ("REVERTED", None)]
    text = drawn(monkeypatch, [Step("build", "DefineDomain", state, error=error) for state, error in states])
    assert "no memory" in text


def test_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, [Step("build", "FetchBase", "RUNNING", progress=0.25)])
    assert "━━━━━╌" in text
    assert "25%" in text


def test_no_color_takes_the_colours_away_and_not_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    colour = re.compile(r"\x1b\[[0-9;]*3\d[;m]")
    assert colour.search(drawn(monkeypatch, STORY))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn(monkeypatch, STORY)
    assert not colour.search(plain)
    assert "FetchBase" in plain


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Terminal(), ""), PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12 ms"), (1.25, "1.2 s"), (59.9, "59.9 s"), (61.9, "1 min 1 s")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_text_of_others_is_one_printable_line_with_an_end() -> None:
    assert printable("a\n\tb\x07\x1b") == "a b"
    assert len(printable("x" * 10_000)) == 500
