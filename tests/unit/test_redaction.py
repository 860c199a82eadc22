"""What is masked, and for how long."""

from __future__ import annotations

import pytest

from virtflow import redaction


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("virtflow.redaction.time.monotonic", lambda: now[0])
    monkeypatch.setattr(redaction, "_known", {})
    return now


def test_the_longest_secret_is_masked_first() -> None:
    redaction.remember("sesame")
    redaction.remember("open sesame now")
    assert redaction.scrub("say open sesame now, or sesame") == "say ***, or ***"


def test_lines_of_a_long_secret_are_masked_but_not_the_short_ones() -> None:
    redaction.remember(b"#cloud-config\nruncmd:\n- a\n")
    assert redaction.scrub("runcmd: - a, of #cloud-config") == "runcmd: - a, of ***"


def test_three_characters_mask_nothing() -> None:
    redaction.remember("abc")
    assert redaction.scrub("abcdef") == "abcdef"


def test_what_was_read_long_ago_takes_no_memory(clock: list[float]) -> None:
    redaction.remember("of a password option")
    redaction.remember("of an operation", seconds=60)
    redaction.remember("of an operation", seconds=30)
    clock[0] += 59
    redaction.remember("another one", seconds=60)
    assert redaction.scrub("of an operation") == "***"
    clock[0] += 2
    redaction.remember("the last one", seconds=60)
    assert set(redaction._known) == {"of a password option", "another one", "the last one"}
