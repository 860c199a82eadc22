"""When a live migration is taken back and when it goes on, and what its destination refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from taskflow import retry
from taskflow.types.failure import Failure

from virtflow.errors import (
    HostGivenUp,
    HostStorageError,
    HypervisorError,
    InvalidRequest,
    MigrationFailed,
    OperationCancelled,
    SegmentFailed,
)
from virtflow.requests import LiveMigrateRequest
from virtflow.storage.instance_directory import InstanceDirectories
from virtflow.tasks.base import Debt
from virtflow.tasks.live_migrate import LeaveSource, StayOrGo
from virtflow.tasks.live_migrate_destination import CheckDestination, FindArrived, MakeLandingDir
from virtflow.tasks.live_migrate_source import Migrate, RemoveLeftDir, UntilJudged, marker_of

UUID = "3f2c4f56-0000-4000-8000-000000000001"


class Segments:
    """Of an operation of which one segment has ended well, or none; they answer, or raise."""

    def __init__(self, finished: str = "", answers: Mapping[tuple[str, str], Any] | None = None) -> None:
        self._finished = finished
        self._answers = answers or {}
        self.undone: list[str] = []

    def run(self, segment: str, host: str, _inputs: Any, **_how: Any) -> Any:
        answer = self._answers[segment, host]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def finished(self, segment: str, _host: str) -> bool:
        return segment == self._finished

    def undo(self, segment: str, _host: str) -> None:
        self.undone.append(segment)


def history(error: Exception, attempts: int = 1) -> retry.History:
    return retry.History([(number, {"Task": Failure.from_exception(error)}) for number in range(attempts)])


def test_what_fails_after_the_guest_has_arrived_is_tried_again_and_before_that_all_is_taken_back() -> None:
    stay_or_go = StayOrGo("leave", "find")
    where = {"source_host": "a", "destination": "b"}
    arrived, found, here = Segments("leave"), Segments("find"), Segments()
    for segments, undone in ((arrived, []), (found, []), (here, ["leave"])):
        decided = retry.REVERT if undone else retry.RETRY
        assert stay_or_go.on_failure(history(ValueError()), segments=segments, **where) == decided
        leave = LeaveSource("leave", found="find", name="LeaveSource", requires=(), provides=())
        leave.revert(host="a", segments=segments, destination="b")
        assert segments.undone == undone


def test_the_destination_is_asked_for_the_guest_only_where_its_host_was_given_up() -> None:
    leave = LeaveSource("leave", found="find", name="LeaveSource", requires=(), provides=())
    inputs = {"instance_uuid": UUID, "destination": "b"}
    fine = Segments(answers={("leave", "a"): {"migrated": 1}})
    assert leave.execute(host="a", segments=fine, **inputs) == {"migrated": 1}
    fenced = HostGivenUp(segment="leave", host="a", cause="it was declared fenced")
    found = Segments(answers={("leave", "a"): fenced, ("find", "b"): {"migrated": 2}})
    assert leave.execute(host="a", segments=found, **inputs) == {"migrated": 2}
    failed = SegmentFailed(segment="leave", host="a", cause="no")
    with pytest.raises(SegmentFailed):
        leave.execute(host="a", segments=Segments(answers={("leave", "a"): failed}), **inputs)


def test_a_host_that_is_back_does_not_start_a_guest_that_is_anothers_by_now() -> None:
    kept: list[str] = []
    migrations = SimpleNamespace(keep=lambda uuid, _landing: kept.append(uuid) or True)
    given = {"instance_uuid": UUID, "landing": {}, "migrations": migrations, "settings": SimpleNamespace(host="a")}
    given |= {"moved_volumes": [], **dict.fromkeys(("volume_connector", "libvirt_secrets", "secrets"))}
    for host, asked in (("b", []), ("a", [UUID])):
        instances = SimpleNamespace(get=lambda _uuid, host=host: SimpleNamespace(host=host))
        assert Migrate().revert(instances=instances, **given) is None
        assert kept == asked


def test_a_guest_that_has_not_come_is_no_success() -> None:
    assert FindArrived().execute(UUID, SimpleNamespace(settle_here=lambda _uuid: True)) == {"found": True}
    with pytest.raises(MigrationFailed, match="fenced before it had arrived"):
        FindArrived().execute(UUID, SimpleNamespace(settle_here=lambda _uuid: False))


def test_a_failure_that_does_not_say_where_the_guest_is_is_looked_into_again() -> None:
    judged = MigrationFailed(domain="web1", reason="no")
    assert UntilJudged().on_failure(history(judged)) == retry.REVERT
    assert UntilJudged().on_failure(history(OperationCancelled(step="Migrate"))) == retry.REVERT
    assert UntilJudged().on_failure(history(ValueError())) == retry.RETRY
    assert UntilJudged().on_failure(history(ValueError(), attempts=5)) == retry.REVERT


def check(directories: InstanceDirectories, domains: Any = (), block: bool = False, **source: Any) -> dict[str, Any]:
    given = {"marker": [1, 2, 3], "directory": f"/a/{UUID}"} | source
    return CheckDestination().execute(
        UUID,
        {"name": "web1"},
        {"block": block},
        given,
        [{"allocated": source.get("allocated", 0)}],
        hypervisor=SimpleNamespace(domains=lambda: domains),
        directories=directories,
        migrations=SimpleNamespace(address_here=lambda: {"uri": "u"}, check_fits=lambda _guest: None),
    )


def test_a_host_with_what_is_left_or_a_name_that_is_taken_or_without_space_is_refused(tmp_path: Path) -> None:
    directories = InstanceDirectories(tmp_path)
    assert check(directories) == {
        "shared": False,
        "directory": str(tmp_path / UUID),
        "source_directory": f"/a/{UUID}",
        "uri": "u",
    }
    for uuid, name, reason in ((UUID, "web1", "not cleaned up"), ("other", "web1", "domain of that name")):
        with pytest.raises(HypervisorError, match=reason):
            check(directories, [SimpleNamespace(uuid=uuid, name=name)])
    with pytest.raises(HostStorageError, match="bytes are needed"):
        check(directories, allocated=1 << 62)


def test_storage_is_shared_when_both_hosts_see_the_same_directory(tmp_path: Path) -> None:
    directories = InstanceDirectories(tmp_path)
    directories.make(UUID, "spawn")
    marker = marker_of(directories.path(UUID))
    assert marker is not None
    assert check(directories, marker=marker)["shared"]
    with pytest.raises(InvalidRequest, match="same storage"):
        check(directories, marker=marker, block=True)
    landing = {"shared": True, "directory": str(directories.path(UUID))}
    assert MakeLandingDir().execute(UUID, "op", landing, directories) == landing["directory"]
    MakeLandingDir().revert(instance_uuid=UUID, operation="op", directories=directories, migrations=None)
    assert directories.owner(UUID) == "spawn", "it is not this operation's"


def test_nothing_is_removed_under_a_guest_that_runs(tmp_path: Path) -> None:
    directories = InstanceDirectories(tmp_path)
    directories.make(UUID, "op")
    runs = SimpleNamespace(clear_for_removal=lambda _uuid: False)
    left = MakeLandingDir().revert(instance_uuid=UUID, operation="op", directories=directories, migrations=runs)
    assert isinstance(left, Debt)
    assert directories.owner(UUID) == "op"
    leftover = {"instance_uuid": UUID, "owner": "op", "shared": False}
    active = SimpleNamespace(state=lambda _uuid: SimpleNamespace(is_active=True))
    with pytest.raises(HypervisorError, match="although the instance is on another host"):
        RemoveLeftDir().execute(leftover, active, directories)
    gone = SimpleNamespace(state=lambda _uuid: None)
    RemoveLeftDir().execute(leftover | {"owner": "another"}, gone, directories)
    assert directories.owner(UUID) == "op", "what somebody else has made there stays"
    RemoveLeftDir().execute(leftover, gone, directories)
    assert not directories.path(UUID).exists()


def test_a_request_says_what_is_asked_for_this_time_and_nothing_else() -> None:
    plain = LiveMigrateRequest(name="web1", post_copy=True).to_plain()
    assert (plain["post_copy"], plain["auto_converge"], plain["bandwidth"], plain["block"]) == (True, None, None, False)
    with pytest.raises(InvalidRequest):
        LiveMigrateRequest(name="web1", bandwidth=-1)
    with pytest.raises(InvalidRequest):
        LiveMigrateRequest(name="web1", on_timeout="never")  # type: ignore[arg-type]
