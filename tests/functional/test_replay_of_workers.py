"""What operations did that took more than one host: looked at, replayed, and made again elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from virtflow.cli.replay_live import parse_request
from virtflow.engine.forking import fork
from virtflow.persistence.operations import Operation
from virtflow.replay.checking import check
from virtflow.replay.forkable import kept_results
from virtflow.replay.player_stage import Code
from virtflow.replay.reading import read
from virtflow.replay.recording import Recording
from virtflow.testing.fleet import Fleet

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two hosts; domains cannot be defined on h1."""
    with Fleet.up() as up:
        up.start({"h1": "DefineDomain:before:raise:*"})
        yield up
        assert up.settle() == []


@pytest.fixture(scope="module")
def rescheduled(fleet: Fleet) -> Operation:
    """A spawn for which the scheduler chose h1 first: of several, because it prefers the host that has more left."""
    for _ in range(5):
        operation = fleet.wait(fleet.client.submit(fleet.small()))
        assert operation.outcome == "SUCCESS"
        if hosts_of(fleet, operation)[0] == "h1":
            return operation
    raise AssertionError("h1 was never chosen first")


def hosts_of(fleet: Fleet, operation: Operation) -> list[str]:
    """The hosts on which the spawn's segment ran, in order."""
    recording = recorded(fleet, operation)
    return [flow.host for flow in recording.flows if flow.kind == "spawn.host"]


def recorded(fleet: Fleet, operation: Operation) -> Recording:
    return read(fleet.client.database, operation.id)


def test_a_reschedule_is_replayed_without_divergence_on_both_hosts(fleet: Fleet, rescheduled: Operation) -> None:
    assert hosts_of(fleet, rescheduled) == ["h1", "h2"]
    assert check(recorded(fleet, rescheduled), Code.installed()).divergences == ()


def test_a_page_of_a_reschedule_shows_both_attempts(fleet: Fleet, rescheduled: Operation, tmp_path: Path) -> None:
    from virtflow.replay.report.page import page

    text = page(recorded(fleet, rescheduled))
    assert "injected fault before DefineDomain" in text
    assert '"h1"' in text
    assert '"h2"' in text


def test_a_spawn_that_failed_on_one_host_is_forked_to_another_and_succeeds(fleet: Fleet) -> None:
    failed = fleet.wait(fleet.client.submit(fleet.small(host="h1")))
    assert (failed.outcome, failed.error) == ("REVERTED", "DefineDomain: injected fault before DefineDomain")
    results = kept_results(recorded(fleet, failed), "NextHost", Code.installed())
    forked = fork(fleet.client, failed, results, {"host": "h2"}, parse=parse_request)
    assert forked.outcome == "SUCCESS"
    assert hosts_of(fleet, forked) == ["h2"]
    assert forked.parent == failed.id
    instance = fleet.client.services["instances"].find(failed.target.partition(":")[2], failed.project)
    assert instance.host == "h2"
