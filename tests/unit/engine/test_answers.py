"""Waiting for verdicts: who is told of one wakes at once, and there is one look of a process for all."""

from __future__ import annotations

import threading
from typing import Any

from virtflow.engine.answers import Answers
from virtflow.errors import DatabaseError
from virtflow.persistence.job_news import JobNews
from virtflow.persistence.posting import answer_topic

_PATIENCE = 30.0


class Verdicts:
    """A repository in which segments end when a test says so."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.asked_for: list[set[str]] = []
        self.failures = 0

    def ended(self, segments: list[str]) -> set[str]:
        self.asked_for.append(set(segments))
        if self.failures:
            self.failures -= 1
            raise DatabaseError(url="sqlite://", reason="away")
        return self.known & set(segments)


def test_who_waits_is_woken_by_the_verdict_of_his_segment_alone() -> None:
    verdicts: Any = Verdicts()
    answers = Answers(verdicts, JobNews())
    with answers.expecting("one") as one, answers.expecting("two") as two:
        verdicts.known.add("two")
        assert two.wait(_PATIENCE)
        assert not one.is_set()
    answers.close()
    assert {"one", "two"} in verdicts.asked_for


def test_a_database_that_is_away_for_a_moment_is_asked_again() -> None:
    verdicts: Any = Verdicts()
    verdicts.failures, verdicts.known = 2, {"one"}
    answers = Answers(verdicts, JobNews())
    with answers.expecting("one") as one:
        assert one.wait(_PATIENCE)
    answers.close()


def test_nobody_is_asked_while_nobody_waits_and_closing_wakes_who_does() -> None:
    verdicts: Any = Verdicts()
    answers = Answers(verdicts, JobNews())
    with answers.expecting("one"):
        closing = threading.Thread(target=answers.close)
        closing.start()
        with answers.expecting("two") as two:
            assert two.wait(_PATIENCE)
        closing.join()
    asked = len(verdicts.asked_for)
    with answers.expecting("three") as three:
        assert three.is_set()
    assert len(verdicts.asked_for) == asked


def test_a_wait_that_was_answered_and_goes_on_is_answered_again() -> None:
    verdicts: Any = Verdicts()
    answers = Answers(verdicts, JobNews())
    with answers.expecting("one") as one:
        for _ in range(3):
            verdicts.known.add("one")
            assert one.wait(_PATIENCE)
            verdicts.known.clear()
            one.clear()
    answers.close()


def test_who_waits_is_woken_by_what_is_told_and_nobody_else() -> None:
    verdicts: Any = Verdicts()
    news = JobNews()
    answers = Answers(verdicts, news)
    with answers.expecting("one") as one, answers.expecting("two") as two:
        news.tell(answer_topic("two"))
        news.tell(answer_topic("of another process"))
        assert two.is_set()
        assert not one.is_set()
    answers.close()
    news.tell(answer_topic("one"))
    assert news.mark(["one", answer_topic("one")]) == 0, "answers are counted as jobs"
