"""What becomes of a job, whatever server keeps it, and what its record may contain."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.persistence.posting import CLAIMED, PARKED, PRIORITIES, READY, Posting
from virtflow.worker.boards.stored_job import DELAYED, StoredJob, decode, encode, id_at, posted

NOW = 1_800_000_000_000_000


def job(**changes: object) -> StoredJob:
    one = posted(Posting("operations", str(uuid.uuid4()), str(uuid.uuid4()), created_at=NOW))
    return replace(one, **changes)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written_in_every_state() -> None:
    waiting = job()
    claimed = waiting.claimed("a", NOW, 15)
    for one in (waiting, claimed, claimed.parked("reason"), claimed.given_back(NOW, 5, "reason", 3)):
        assert decode(one.id, "operations", encode(one)) == one


_WRONG = {
    "id": [None, 7, "other", "../../etc"],
    "topic": [None, [], "", "../../etc", "*"],
    "details": [None, [], {}, "x", {"operation": "os.system", "segment": None}],
    "priority": [None, 1, [], "urgent"],
    "state": [None, 0, "DONE"],
    "attempts": [None, 1.5, "1"],
    "claim": [None, "1"],
    "again": [None, 1, "no"],
    "foreign": [7, {}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in _WRONG.items() for value in values])
def test_a_record_with_one_wrong_value_is_foreign(name: str, value: object) -> None:
    one = job()
    changed = json.loads(encode(one)) | {name: value}
    found = decode(one.id, "operations", json.dumps(changed).encode())
    assert found.foreign is not None
    assert (found.id, found.topic, found.operation, found.segment) == (one.id, "operations", "", None)


def test_a_record_with_one_value_more_or_less_is_foreign() -> None:
    one = job()
    values = json.loads(encode(one))
    more = values | {"factory": "os.system"}
    less = {name: value for name, value in values.items() if name != "claim"}
    for changed in (more, less, values | {"details": values["details"] | {"store": {}}}):
        assert decode(one.id, "operations", json.dumps(changed).encode()).foreign is not None


@given(
    st.one_of(st.binary(max_size=300), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
)
def test_no_record_makes_reading_it_fail(raw: bytes | str) -> None:
    content = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    found = decode("some-id", "operations", content)
    assert found.foreign is not None
    parked = found.parked("reason")
    assert decode("some-id", "operations", encode(parked)) == parked
    assert parked.record().operation == ""


def test_places_sort_by_urgency_then_age_and_lead_to_the_job() -> None:
    jobs = [job(priority=priority, created_at=moment) for priority in PRIORITIES for moment in (0, 5, NOW)]
    places = [one.entry.place for one in jobs]
    assert places == sorted(places)
    assert [id_at(place) for place in places] == [one.id for one in jobs]


@given(st.text(max_size=40), st.integers())
def test_no_place_makes_reading_it_fail(text: str, moment: int) -> None:
    assert id_at(text) == "" or text[:20].replace(".", "").isdigit()
    assert id_at(job(created_at=moment).entry.place) != ""


def test_each_claim_counts_an_attempt_and_has_a_number_that_never_comes_again() -> None:
    first = job().claimed("a", NOW, 15)
    second = first.released().claimed("a", NOW, 15)
    anew = job(id=first.id).claimed("a", NOW + 1_000_000, 15)
    assert (first.attempts, second.attempts, anew.attempts) == (1, 2, 1)
    assert first.claim < second.claim < anew.claim
    assert second.expires_at == NOW + 15_000_000
    assert second.held_by(second.record())
    assert not second.held_by(first.record())


def test_a_finished_job_is_gone_unless_it_was_posted_meanwhile() -> None:
    claimed = job().claimed("a", NOW, 15)
    assert claimed.finished() is None
    again = replace(claimed, again=True, error="earlier").finished()
    assert again is not None
    assert (again.state, again.attempts, again.again, again.owner, again.error) == (READY, 0, False, None, None)


def test_only_failures_and_lost_workers_use_up_attempts() -> None:
    claimed = job(attempts=1).claimed("a", NOW, 15)
    assert claimed.attempts == 2
    assert claimed.given_back(NOW, 0, None, 2).attempts == 1
    assert claimed.given_back(NOW, 0, "failed", 3).state == READY
    assert claimed.given_back(NOW, 0, "failed", 2).state == PARKED
    assert claimed.recovered(3).state == READY
    assert claimed.recovered(2).state == PARKED
    assert "a" in (claimed.recovered(2).error or "")


def test_a_delayed_job_stands_where_nobody_claims_until_its_time() -> None:
    delayed = job().claimed("a", NOW, 15).given_back(NOW, 2.5, None, 3)
    assert (delayed.state, delayed.not_before, delayed.entry.kind) == (READY, NOW + 2_500_000, DELAYED)
    due = delayed.recovered(3)
    assert (due.entry.kind, due.attempts) == (READY, 0)
    assert due.entry == replace(due.claimed("b", NOW, 1), state=READY).entry


def test_an_owner_that_extends_holds_as_long_as_it_says() -> None:
    claimed = job().claimed("a", NOW, 15)
    assert claimed.extended(NOW + 10_000_000, 20).expires_at == NOW + 30_000_000
    assert claimed.extended(NOW, 20).state == CLAIMED
