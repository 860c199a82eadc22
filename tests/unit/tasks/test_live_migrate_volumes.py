"""Volumes of a guest that moves while it runs: what is taken back while it has not arrived, and what is not after."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.errors import Conflict, NotFound
from virtflow.persistence.volumes import Attachment
from virtflow.tasks.base import Debt
from virtflow.tasks.live_migrate import LockForLiveMigration
from virtflow.tasks.live_migrate_volumes import (
    ConnectArriving,
    DisconnectLeft,
    ExportArriving,
    MakeArrivingCredentials,
    SwitchArrived,
)
from virtflow.volumes.driver import Connection

FILE = Connection("file", path="/volumes/volume-v").to_dict()
ISCSI = Connection("iscsi", address="192.0.2.1", port=3260, target="iqn:volume-v", lun=1, user="a").to_dict()
NBD = Connection("nbd", address="192.0.2.1", port=10809, target="volume-v").to_dict()
WHERE = {"source_host": "one", "destination": "two"}


def moved(connection: Mapping[str, Any], backend_host: str = "one") -> dict[str, Any]:
    volume = {"id": "v", "name": "data", "backend": "local", "host": backend_host, "size_gib": 1, "encryption": None}
    return {**volume, "boot": False, "attachment_id": "a", "device": "vdb", "connection": connection}


class Segments:
    """Of an operation of which one segment has ended well, or none."""

    def __init__(self, finished: str = "") -> None:
        self._finished = finished
        self.undone: list[tuple[str, ...]] = []

    def finished(self, segment: str, _host: str) -> bool:
        return segment == self._finished

    def undo(self, *segment: str) -> None:
        self.undone.append(segment)


@pytest.mark.parametrize(("finished", "taken"), [("", True), ("leave", False), ("find", False)])
def test_a_volume_is_not_taken_from_a_guest_that_has_arrived(finished: str, taken: bool) -> None:
    purged: list[str] = []
    secrets = SimpleNamespace(purge=purged.append)
    segments = Segments(finished)
    items = [{"host": "one", "place": "v/two"}]
    ExportArriving("export", "leave", "find").revert(items=items, segments=segments, **WHERE)
    MakeArrivingCredentials("leave", "find").revert([moved(FILE)], secrets=secrets, segments=segments, **WHERE)
    assert segments.undone == ([("export", "one", "v/two")] if taken else [])
    assert purged == (["a"] if taken else [])


@pytest.mark.parametrize("runs", [True, False])
def test_what_waits_for_a_guest_is_removed_before_its_volumes_are_let_go(runs: bool) -> None:
    done: list[str] = []

    def dismiss(_uuid: str) -> bool:
        done.append("dismissed")
        return not runs

    left = ConnectArriving().revert(
        [moved(FILE)],
        [{"connection": ISCSI}],
        "i",
        hypervisor=SimpleNamespace(state=lambda _uuid: None),
        volume_connector=SimpleNamespace(disconnect=lambda *_given: done.append("disconnected")),
        libvirt_secrets=SimpleNamespace(forget=lambda _volume: done.append("forgotten")),
        migrations=SimpleNamespace(clear_for_removal=dismiss),
    )
    assert isinstance(left, Debt) is runs
    assert done == (["dismissed"] if runs else ["dismissed", "forgotten", "disconnected"])


def test_what_the_destination_opens_itself_is_served_no_more_and_what_was_detached_since_stays_so() -> None:
    rows: dict[str, dict[str, Any]] = {"a": {}}

    def change(identity: str, **changes: Any) -> None:
        if identity not in rows:
            raise NotFound(kind="volume attachment", name=identity)
        rows[identity] |= changes

    attachments = SimpleNamespace(set=change)
    exports = [{"place": "v/two", "reach": {"local": True}}, {"place": "w/two", "reach": {"local": False}}]
    for _twice in range(2):
        left = SwitchArrived().execute([moved(ISCSI, "two")], [{"connection": FILE}], exports, "two", {}, attachments)
        assert [each["place"] for each in left] == ["v/two"]
    assert rows == {"a": {"host": "two", "connection": FILE}}
    rows.clear()
    SwitchArrived().execute([moved(ISCSI, "two")], [{"connection": FILE}], exports, "two", {}, attachments)
    assert rows == {}


@pytest.mark.parametrize(("now", "disconnected"), [("two", True), (None, True), ("one", False)])
def test_a_volume_that_an_instance_of_the_old_host_has_got_since_stays_connected_there(
    now: str | None, disconnected: bool
) -> None:
    row = None if now is None else Attachment(id="b", volume="v", instance="other", host=now, operation="o")
    done: list[str] = []
    DisconnectLeft().execute(
        {"instance_uuid": "i", "volumes": [{"id": "v", "connection": ISCSI}]},
        unplugged=True,
        hypervisor=SimpleNamespace(state=lambda _uuid: None),
        volume_attachments=SimpleNamespace(of_volume=lambda _volume: row),
        volume_connector=SimpleNamespace(disconnect=lambda *_given: done.append("disconnected")),
        libvirt_secrets=SimpleNamespace(forget=lambda _volume: done.append("forgotten")),
        settings=SimpleNamespace(host="one"),
    )
    assert done == (["forgotten", "disconnected"] if disconnected else [])


def lock(connection: Mapping[str, Any], wanted: str | None = None, *, at: str, shared: bool = True) -> dict[str, Any]:
    """What is recorded of an instance of host ``at`` that has a volume of host ``storage``."""
    fields = {"uuid": "i", "name": "web1", "project": "p", "operation": "o", "host": at}
    instance = SimpleNamespace(**fields, vm_state="ACTIVE", task_state=None)
    sizes = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1, "swap_mib": 0, "ephemerals": [], "flavor": None}
    spec = {**sizes, "image": {"min_ram": 0}, "zone": None, "host_wanted": {}}
    row = Attachment(id="a", volume="v", instance="i", host=at, device="vdb", operation="o", connection=connection)
    volume = SimpleNamespace(**moved(connection, "storage"))
    task = LockForLiveMigration()
    recorded = task.execute(
        {"name": "web1", "host": wanted},
        "p",
        SimpleNamespace(find=lambda *_given: instance, compare_and_set=lambda *_given: True),
        SimpleNamespace(current=lambda *_given: spec),
        SimpleNamespace(ports=lambda **_given: []),
        SimpleNamespace(get=lambda _volume: volume),
        SimpleNamespace(list=lambda **_given: [row]),
        SimpleNamespace(is_shared=lambda _backend: shared),
    )
    return dict(zip(task.default_provides, recorded, strict=True))


def test_a_guest_goes_where_its_volumes_can_be_reached_while_it_runs() -> None:
    found = lock(ISCSI, at="one")
    assert (found["spec"]["host"], found["excluded"]) == (None, {"one": "the instance is there already"})
    assert [each["id"] for each in found["spec"]["volumes"]] == [each["id"] for each in found["moved_volumes"]] == ["v"]
    assert lock(ISCSI, "storage", at="one")["spec"]["host"] == "storage"
    with pytest.raises(Conflict, match="volume data can only be reached on storage"):
        lock(FILE, at="storage", shared=False)


def test_a_volume_that_nbd_serves_is_reached_by_it_on_its_own_host_too_while_its_guest_comes_and_goes() -> None:
    assert lock(NBD, "storage", at="one")["spec"]["host"] == "storage"
    secrets = SimpleNamespace(put_once=lambda *_given: "reference")
    for where in (("one", "storage"), ("storage", "one"), ("one", "two")):
        assert MakeArrivingCredentials("go", "find").execute([moved(NBD, "storage")], *where, secrets) == []
    served = MakeArrivingCredentials("go", "find").execute([moved(ISCSI, "storage")], "one", "storage", secrets)
    assert [each["reach"]["local"] for each in served] == [True]
