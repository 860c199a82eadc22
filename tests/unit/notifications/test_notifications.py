from __future__ import annotations

import json
import logging
import stat
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from virtflow.errors import ConfigurationError
from virtflow.notifications.drivers import FileDriver, LogDriver
from virtflow.notifications.notifier import Notifier, load_drivers
from virtflow.notifications.payloads import (
    Address,
    Fault,
    InstanceActionPayload,
    InstanceSnapshotPayload,
    Payload,
    VolumeActionPayload,
    VolumeSnapshotActionPayload,
    notification,
)

SAMPLES = Path(__file__).resolve().parents[3] / "docs" / "reference" / "notifications"
MIGRATE = "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d009"
CREATE, DELETE = "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d001", "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d002"
BUILDING = InstanceActionPayload(
    uuid="6f1c1c52-5a0f-4a6e-9a5e-0c8f6f2f3a01",
    name="web1",
    project="default",
    host=None,
    vm_state="BUILDING",
    task_state="SCHEDULING",
    vcpus=1,
    memory_mib=512,
    disk_gib=10,
    flavor="small",
    image_id="d4f9a1f6-9b0d-4bbf-8c53-6a4c3f7f1c55",
    image_name="debian-12",
    addresses=(),
    created_at="2026-11-21T03:00:00.000Z",
    launched_at=None,
    deleted_at=None,
    operation=CREATE,
    fault=None,
)
PORT = Address("10.0.0.9", "52:54:00:11:22:33", "c3b1f5d0-1111-4222-8333-0123456789ab", "blue")
ACTIVE = replace(
    BUILDING,
    host="host-a",
    vm_state="ACTIVE",
    task_state=None,
    addresses=(PORT,),
    launched_at="2026-11-21T03:00:09.000Z",
)
FAULT = Fault("NoFreeAddress", "network 'blue' has no free address")
DELETED = replace(ACTIVE, addresses=(), deleted_at="2026-11-21T04:00:00.000Z")

REBUILD = "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d005"
EVACUATING = replace(ACTIVE, task_state="EVACUATING")

SNAPSHOT = "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d003"
SNAPSHOTTED = InstanceSnapshotPayload(
    **{field.name: getattr(ACTIVE, field.name) for field in fields(ACTIVE)},
    snapshot_image_id="8a1f5c9e-7d42-5f0b-9a37-5d3b1c1e0f11",
    snapshot_image_name="golden",
)
SNAPSHOTTING = replace(SNAPSHOTTED, task_state=f"SNAPSHOTTING/{SNAPSHOT}")

STORAGE = "0b7b0f8e-52d5-4a7e-8f0d-0a43c8a1d004"
CREATING = VolumeActionPayload(
    id="2f7a1e7b-3c1e-5a6b-8b52-c1d8f7c0aa01",
    name="data",
    project="default",
    size_gib=10,
    state="CREATING",
    backend=None,
    host=None,
    type="fast",
    zone=None,
    bootable=False,
    instance=None,
    device=None,
    created_at="2026-11-21T03:00:00.000Z",
    deleted_at=None,
    operation=STORAGE,
    fault=None,
)
AVAILABLE = replace(CREATING, state="AVAILABLE", backend="host-a@local", host="host-a")
IN_USE = replace(AVAILABLE, state="IN_USE", instance=BUILDING.uuid, device="vdb")
TAKING = VolumeSnapshotActionPayload(
    id="91c2e0a4-0d7f-5c11-9f3e-1b0c9d5e7702",
    name="before-upgrade",
    project="default",
    volume=CREATING.id,
    size_gib=10,
    state="CREATING",
    backend="host-a@local",
    host="host-a",
    bootable=False,
    created_at="2026-11-21T03:30:00.000Z",
    deleted_at=None,
    operation=STORAGE,
    fault=None,
)
TAKEN = replace(TAKING, state="AVAILABLE")
LATER = "2026-11-21T04:00:00.000Z"
STUCK = Fault("HypervisorError", "cannot detach from domain web1: the guest has not let go of vdb in 60 s")


def events_of(action: str, start: Any, end: Any, fault: Fault, before: Any = None) -> dict[tuple[str, str], Any]:
    """All four; ``before`` is what is left after it was taken back, where that is not what there was at its start."""
    left = start if before is None else before
    return {
        (action, "start"): (STORAGE, start),
        (action, "end"): (STORAGE, end),
        (action, "error"): (STORAGE, replace(left, fault=fault)),
        (action, "undone"): (STORAGE, left),
    }


EVENTS: dict[tuple[str, str], tuple[str, Payload]] = {
    ("instance.create", "start"): (CREATE, BUILDING),
    ("instance.create", "end"): (CREATE, ACTIVE),
    ("instance.create", "error"): (CREATE, replace(BUILDING, fault=FAULT)),
    ("instance.create", "undone"): (CREATE, BUILDING),
    ("instance.delete", "start"): (DELETE, replace(ACTIVE, task_state="DELETING")),
    ("instance.delete", "end"): (DELETE, DELETED),
    ("instance.delete", "error"): (
        DELETE,
        replace(ACTIVE, task_state="DELETING", fault=Fault("HypervisorError", "cannot destroy domain web1: timed out")),
    ),
    ("instance.delete", "undone"): (DELETE, replace(ACTIVE, task_state="DELETING")),
    ("instance.rebuild", "start"): (REBUILD, EVACUATING),
    ("instance.rebuild", "end"): (REBUILD, replace(ACTIVE, host="host-b")),
    ("instance.rebuild", "error"): (REBUILD, replace(EVACUATING, fault=Fault("NoValidHost", "no host can take it"))),
    ("instance.live_migrate", "start"): (MIGRATE, replace(ACTIVE, task_state="MIGRATING")),
    ("instance.live_migrate", "end"): (MIGRATE, replace(ACTIVE, host="host-b")),
    ("instance.live_migrate", "error"): (
        MIGRATE,
        replace(
            ACTIVE,
            task_state="MIGRATING",
            fault=Fault("SegmentRefused", "live-migrate.leave failed on host host-a: domain was not migrated"),
        ),
    ),
    ("instance.snapshot", "start"): (SNAPSHOT, SNAPSHOTTING),
    ("instance.snapshot", "end"): (SNAPSHOT, SNAPSHOTTED),
    ("instance.snapshot", "error"): (
        SNAPSHOT,
        replace(SNAPSHOTTING, fault=Fault("ImageNotPublished", "cannot publish image 'golden': the checksums differ")),
    ),
    ("instance.snapshot", "undone"): (SNAPSHOT, SNAPSHOTTING),
    **events_of("volume.create", CREATING, AVAILABLE, Fault("VolumeError", "cannot create volume: no space left")),
    **events_of(
        "volume.delete",
        replace(AVAILABLE, state="DELETING"),
        replace(AVAILABLE, state="DELETING", deleted_at=LATER),
        Fault("VolumeError", "cannot delete volume: permission denied"),
    ),
    **events_of(
        "volume.attach",
        replace(IN_USE, state="ATTACHING", device=None),
        IN_USE,
        Fault("HypervisorError", "cannot attach to domain web1: it is gone"),
    ),
    **events_of("volume.detach", replace(IN_USE, state="DETACHING"), AVAILABLE, STUCK),
    **events_of(
        "volume.extend",
        replace(IN_USE, state="EXTENDING"),
        replace(IN_USE, size_gib=20),
        Fault("QuotaExceeded", "quota exceeded for volume_gib: 10 requested, 5 of 100 left"),
    ),
    **events_of("snapshot.create", TAKING, TAKEN, Fault("VolumeError", "cannot snapshot volume: no space left")),
    **events_of(
        "snapshot.delete",
        replace(TAKEN, state="DELETING"),
        replace(TAKEN, state="DELETING", deleted_at=LATER),
        Fault("VolumeError", "cannot delete snapshot: permission denied"),
    ),
}


def document(action: str, phase: str) -> dict[str, Any]:
    operation, payload = EVENTS[action, phase]
    return notification(
        action, phase, payload, host="host-a", operation=operation, timestamp="2026-11-21T03:00:10.000Z"
    )


@pytest.mark.parametrize(("action", "phase"), EVENTS)
def test_the_documented_sample_of_an_event_is_what_is_sent(
    action: str, phase: str, request: pytest.FixtureRequest
) -> None:
    text = json.dumps(document(action, phase), indent=2) + "\n"
    path = SAMPLES / f"{action}.{phase}.json"
    if request.config.getoption("--regenerate"):
        path.write_text(text)
    assert path.exists(), f"{path} is missing: look at what was made and check it in (pytest --regenerate)"
    assert text == path.read_text()


def test_there_is_no_sample_of_an_event_that_does_not_exist() -> None:
    names = {path.name for path in SAMPLES.glob("*.json")}
    assert names == {f"{action}.{phase}.json" for action, phase in EVENTS}


def test_a_payload_has_no_field_that_could_carry_a_secret() -> None:
    payloads = (InstanceSnapshotPayload, VolumeActionPayload, VolumeSnapshotActionPayload)
    names = {field.name for payload in payloads for field in fields(payload)}
    assert not names & {"meta", "metadata", "user_data", "admin_password", "files", "ssh_keys", "title", "request"}


def test_the_same_event_of_an_operation_has_the_same_id_and_no_other_has() -> None:
    ids = [document(action, phase)["message_id"] for action, phase in EVENTS]
    assert len(set(ids)) == len(EVENTS)
    assert ids == [document(action, phase)["message_id"] for action, phase in EVENTS]


def send(drivers: Mapping[str, Any]) -> None:
    notifier = Notifier("host-a", drivers)
    notifier.notify("instance.create", "end", ACTIVE, operation=CREATE, timestamp="2026-11-21T03:00:10.000Z")


def test_the_log_driver_writes_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "virtflow.notifications"):
        send({"log": LogDriver({})})
    (record,) = caplog.records
    assert json.loads(record.getMessage())["event_type"] == "instance.create.end"


def test_the_file_driver_appends_lines_that_only_the_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    driver = FileDriver({"file": path})
    send({"file": driver})
    send({"file": driver})
    assert [json.loads(line)["payload"]["version"] for line in path.read_text().splitlines()] == ["1.0"] * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_driver_that_fails_is_logged_and_the_next_one_still_sends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    send({"broken": FileDriver({"file": tmp_path / "no" / "such"}), "file": FileDriver({"file": path})})
    assert path.exists()
    (record,) = caplog.records
    assert record.getMessage().startswith("cannot send notification instance.create.end through broken: FileNotFound")


SETTINGS = {"file": None, "transport_url": None, "topic": "t"}


def test_a_driver_that_does_not_exist_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"option \[notifications\] drivers: 'pigeon' is none of log, file"):
        load_drivers(["log", "pigeon"], SETTINGS)


def test_the_messaging_driver_without_a_broker_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"option \[notifications\] transport_url: the driver messaging needs"):
        load_drivers(["messaging"], SETTINGS)


def test_the_messaging_driver_sends_what_a_listener_of_its_topic_receives() -> None:
    reason = "needs oslo.messaging (pip install oslo.messaging)"
    oslo_messaging = pytest.importorskip("virtflow.notifications.messaging", reason=reason).oslo_messaging
    from oslo_config import cfg

    received: list[tuple[str, str, Any]] = []

    class Endpoint:
        def info(self, _context: Any, publisher: str, event: str, payload: Any, _metadata: Any) -> None:
            received.append((publisher, event, payload))

    url = "fake://"
    (driver,) = load_drivers(["messaging"], SETTINGS | {"transport_url": url}).values()
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_notification_transport(conf, url=url)
    target = oslo_messaging.Target(topic="t")
    listener = oslo_messaging.get_notification_listener(transport, [target], [Endpoint()], executor="threading")
    listener.start()
    try:
        send({"messaging": driver})
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        listener.stop()
        listener.wait()
    assert received == [("virtflow:host-a", "instance.create.end", document("instance.create", "end")["payload"])]
