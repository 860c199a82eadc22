"""Each kind of residue is planted once on a host that is in order: it is found, and nothing else is."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.engine.settled_host import (
    BRIDGE,
    COMING,
    DEAD_PID,
    DELETED,
    FAILED,
    LIVE,
    NETWORK,
    RUNNING,
    SPAWNED,
    TRASHED,
    SettledHost,
    named,
)
from virtflow.config import load
from virtflow.engine.audit import audit
from virtflow.errors import DatabaseError
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.instances import GOING_ON

GONE = named("gone")
UNKNOWN = named("unknown operation")


@pytest.fixture
def host(migrated_file: Path, tmp_path: Path) -> Iterator[SettledHost]:
    shutil.copy(migrated_file, tmp_path / "virtflow.db")
    config = load(overrides={"state_dir": str(tmp_path), "libvirt.uri": "qemu:///system"}, env={})
    database = Database(config.database.url)
    yield SettledHost(config, database)
    database.close()


def dead(host: SettledHost) -> str:
    return json.dumps([host.config.host, DEAD_PID, *json.loads(owner_here("x"))[2:]])


def leave_bridge_alone(host: SettledHost) -> None:
    """Nobody works any more, and nothing is plugged into the bridge."""
    for operation in (RUNNING, named("op-wait")):
        host.change("operations", {"id": operation}, state="FINISHED", outcome="SUCCESS")
        host.remove("targets", operation=operation)
    host.change("instances", {"uuid": COMING}, vm_state="ACTIVE", task_state=None)
    host.change("quota_charges", {"consumer": COMING}, state="COMMITTED")
    host.remove("quota_charges", consumer=named("waiting"))
    host.remove("secrets", owner=RUNNING)
    host.change("ledger", {"operation": RUNNING}, state="PRESENT")
    (host.instances / COMING / f"disk.tmp.{RUNNING}").unlink()
    shutil.rmtree(host.instances / f"{COMING}.tmp.{RUNNING}")
    host.taps.taps.clear()


def elsewhere(host: SettledHost) -> SettledHost:
    """The guest that runs has gone to another host."""
    host.change("instances", {"uuid": LIVE}, host="elsewhere")
    return host


PLANTED: dict[str, tuple[Callable[[SettledHost], object], str, str, str]] = {
    # what: (plant it, kind, identity (its end), words of the reason)
    "a directory whose operation is over": (
        lambda host: host.directory(GONE, FAILED), "directory", GONE, "rm -r"),
    "a directory of an instance elsewhere, made by an operation that was taken back": (
        lambda host: elsewhere(host).directory(LIVE, FAILED), "directory", LIVE, "which was taken back: rm -r"),
    "a domain of an instance elsewhere, made by an operation that was taken back": (
        lambda host: elsewhere(host).domain(LIVE, FAILED), "domain", LIVE, "which was taken back: virsh"),
    "a claim of an instance elsewhere, made by an operation that was taken back": (
        lambda host: elsewhere(host).change("allocations", {"consumer": LIVE}, operation=FAILED),
        "allocation", LIVE, "which was taken back: delete"),
    "a base reference of an instance elsewhere, made by an operation that was taken back": (
        lambda host: elsewhere(host).change("base_references", {"consumer": LIVE}, operation=FAILED),
        "base_reference", LIVE, "which was taken back, so"),
    "a directory of an operation that nobody knows": (
        lambda host: host.directory(GONE, UNKNOWN), "directory", GONE, "an unknown operation"),
    "a directory without an owner": (
        lambda host: host.file(GONE, "disk"), "directory", GONE, "rm -r"),
    "a staged directory": (
        lambda host: host.file(f"{GONE}.tmp.{FAILED}", "x"), "file", f"{GONE}.tmp.{FAILED}", "will not go on with it"),
    "a staged file in a live instance's directory": (
        lambda host: host.file(LIVE, f"disk.tmp.{SPAWNED}"), "file", f"disk.tmp.{SPAWNED}", "rm -r"),
    "a staged file of an unknown operation": (
        lambda host: host.file(LIVE, f"disk.config.tmp.{UNKNOWN}.tree"), "file", f"{UNKNOWN}.tree", "unknown"),
    "an interrupted injection": (
        lambda host: host.directory(f"{LIVE}/disk.injecting.{FAILED}", FAILED), "file", f"injecting.{FAILED}", "rm -r"),
    "half a download": (
        lambda host: host.file("_base", "b" * 40 + ".part"), "file", ".part", "nobody goes on with"),
    "half a conversion": (
        lambda host: host.file("_base", "b" * 40 + ".converted"), "file", ".converted", "rm "),
    "trash of an unknown operation": (
        lambda host: host.file("_trash", UNKNOWN, "disk"), "trash", UNKNOWN, "no undo will bring it back"),
    "trash of a delete that was undone": (
        lambda host: host.file("_trash", FAILED, "disk"), "trash", FAILED, "rm -r"),
    "a domain whose operation is over": (
        lambda host: host.domain(GONE, FAILED), "domain", GONE, "virsh undefine"),
    "a domain of an unknown operation": (
        lambda host: host.domain(GONE, UNKNOWN), "domain", GONE, "an unknown operation"),
    "a domain of a deleted instance": (
        lambda host: host.domain(TRASHED, SPAWNED), "domain", TRASHED, "no instance of that uuid lives"),
    "an instance without a domain": (
        lambda host: host.hypervisor.records.pop(0), "instance", LIVE, "libvirt has no domain of it: virtflow delete"),
    "an instance without a directory": (
        lambda host: shutil.rmtree(host.instances / LIVE), "instance", LIVE, "its directory is gone"),
    "a tap without a port": (
        lambda host: host.tap(GONE, SPAWNED), "tap", "vf", "ip link delete"),
    "a tap whose alias was lost": (
        lambda host: (
            host.intent(FAILED, "tap", "vf111", "CLEARED"),
            host.taps.taps.append(SimpleNamespace(name="vf111", bridge=BRIDGE, owner=None)),
        ), "tap", "vf111", "ip link delete"),
    "a bridge that nobody uses": (
        leave_bridge_alone, "bridge", BRIDGE, "nothing is plugged into it"),
    "half a bridge": (
        lambda host: (
            leave_bridge_alone(host),
            host.taps.made.clear(),
            host.taps.made.update({f"vf-{hashlib.sha256(BRIDGE.encode()).hexdigest()[:12]}": None}),
        ), "bridge", "vf-", "ip link delete"),
    "a filter without a tap": (
        lambda host: host.hypervisor.names.append("virtflow-vf999"), "filter", "virtflow-vf999", "nwfilter-undefine"),
    "a port whose instance is gone": (
        lambda host: host.port(GONE, FAILED, 9), "port", "", "10.0.0.9"),
    "an allocation whose instance is gone": (
        lambda host: host.allocation(GONE, FAILED), "allocation", GONE, "and no instance of that uuid lives"),
    "a charge whose instance is gone": (
        lambda host: host.charge(GONE, FAILED, "COMMITTED"), "quota", GONE, "1 vcpus COMMITTED"),
    "a reservation of an operation that is over": (
        lambda host: host.charge(GONE, FAILED, "RESERVED"), "quota", GONE, "1 vcpus RESERVED"),
    "a reservation that was never committed": (
        lambda host: host.change("quota_charges", {"consumer": LIVE}, state="RESERVED"), "quota", LIVE, "RESERVED"),
    "a released charge that nothing can bring back": (
        lambda host: host.charge(GONE, FAILED, "RELEASED"), "quota", GONE, "RELEASED"),
    "a secret of an operation that is over": (
        lambda host: host.add("secrets", ref="secret:old", owner=SPAWNED, name="user_data", ciphertext=b"x"),
        "secret", "secret:old", "needs it no longer"),
    "a secret of something that is gone": (
        lambda host: host.add("secrets", ref="secret:old", owner=GONE, name="chap", ciphertext=b"x"),
        "secret", "secret:old", "needs it no longer"),
    "a base in use by nobody": (
        lambda host: host.reference(GONE, FAILED), "base_reference", GONE, "not in use by it"),
    "a member that never came to be": (
        lambda host: host.add("server_group_members", instance=GONE, group_id=named("group"), operation=FAILED),
        "member", GONE, "never came to be"),
    "a target held by an operation that is over": (
        lambda host: host.add("targets", target="instance:held", operation=FAILED),
        "target", "instance:held", "nothing else can be done with it"),
    "an operation whose process is dead": (
        lambda host: host.change("claims", {"subject": RUNNING}, owner=dead(host)),
        "operation", RUNNING, "was interrupted: virtflow operation resume 4"),
    "an operation that nobody runs": (
        lambda host: host.change("claims", {"subject": RUNNING}, owner=None), "operation", RUNNING, "resume 4"),
    "an undo whose process is dead": (
        lambda host: (
            host.change("operations", {"id": RUNNING}, state="UNDOING"),
            host.change("claims", {"subject": RUNNING}, owner=dead(host)),
        ), "operation", RUNNING, "resume 4"),
    "a retried revert whose process is dead": (
        lambda host: (
            host.change("claims", {"subject": FAILED}, owner=dead(host)),
            host.add("targets", target="instance:failed", operation=FAILED),
        ), "operation", FAILED, "retry-revert 6"),
    "a purge that could not be finished": (
        lambda host: host.operation(named("p"), "purge", "trash:x", "FINISHED", "FAILED_FORWARD"),
        "operation", named("p"), "virtflow operation resume"),
    "a debt": (
        lambda host: host.intent(FAILED, "tap", "vf7", "DEBT"), "debt", "tap vf7", "retry-revert 6"),
    "a debt of a task that had announced nothing": (
        lambda host: host.intent(FAILED, "revert", "StopDomain", "DEBT"), "debt", "StopDomain", "retry-revert 6"),
    "an intent of an operation that is over": (
        lambda host: host.intent(FAILED, "tap", "vf7", "INTENDED"), "intent", "tap vf7", "may have made it"),
    "a thing that was not taken back": (
        lambda host: host.intent(FAILED, "tap", "vf7", "PRESENT"), "intent", "tap vf7", "was not reverted"),
    "an instance stuck building": (
        lambda host: host.change("instances", {"uuid": LIVE}, vm_state="BUILDING"), "instance", LIVE, "BUILDING"),
    "an instance stuck in its deletion": (
        lambda host: host.change("instances", {"uuid": LIVE}, task_state="DELETING"),
        "instance", LIVE, "ACTIVE, DELETING, but nothing works on it"),
}  # fmt: skip


def test_what_an_instance_has_on_its_own_host_is_its_own_whoever_has_made_it(host: SettledHost) -> None:
    host.directory(LIVE, FAILED)
    host.change("allocations", {"consumer": LIVE}, operation=FAILED)
    assert host.audit() == []


def test_what_belongs_to_no_host_is_an_instances_wherever_it_lives(host: SettledHost) -> None:
    for table, of_instance in {"ports": "instance", "quota_charges": "consumer"}.items():
        elsewhere(host).change(table, {of_instance: LIVE}, operation=FAILED)
    assert host.audit() == []


def test_a_host_in_order_has_no_findings(host: SettledHost) -> None:
    assert host.audit() == []


@pytest.mark.parametrize("what", PLANTED)
def test_residue_is_found_and_nothing_else(host: SettledHost, what: str) -> None:
    plant, kind, identity, words = PLANTED[what]
    plant(host)
    found = host.audit()
    assert [finding.kind for finding in found] == [kind], found
    assert identity in found[0].identity
    assert words in found[0].reason
    assert "\n" not in found[0].reason


def test_what_somebody_works_on_is_no_leftover(host: SettledHost) -> None:
    host.file("_base", "b" * 40 + ".part")
    lock = host.file("locks", "base-" + "b" * 40)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.audit() == []
    assert len(host.audit()) == 1


def test_a_secret_lives_as_long_as_the_attachment_that_owns_it(host: SettledHost) -> None:
    volume, attachment = named("volume"), named("attachment")
    fields = {"project": "default", "size_gib": 1, "state": "IN_USE", "bootable": False, "source": {}, "meta": {}}
    host.add("volumes", id=volume, name="v", live_name="v", operation=SPAWNED, created_at=1, **fields)
    host.add("volume_attachments", id=attachment, volume=volume, instance=LIVE, host="elsewhere", operation=SPAWNED)
    host.add("secrets", ref="secret:chap", owner=attachment, name="chap", ciphertext=b"x")
    host.add("secrets", ref="secret:key", owner=volume, name="key", ciphertext=b"x")
    assert [finding for finding in host.audit() if finding.kind == "secret"] == []
    host.remove("volume_attachments", id=attachment)
    assert [finding.identity for finding in host.audit() if finding.kind == "secret"] == ["secret:chap"]


@pytest.mark.parametrize("kept", ["known", "opening"], ids=["password", "key"])
def test_what_libvirt_keeps_for_no_attachment_is_found(host: SettledHost, kept: str) -> None:
    volume = named("volume")
    fields = {"project": "default", "size_gib": 1, "state": "AVAILABLE", "bootable": False, "source": {}, "meta": {}}
    host.add("volumes", id=volume, name="v", live_name="v", operation=SPAWNED, created_at=1, **fields)
    setattr(host.libvirt_secrets, kept, [volume, named("of another virtflow")])
    found = [finding.identity for finding in host.audit() if finding.kind == "libvirt_secret"]
    assert found == [volume]
    here = host.config.host
    host.add("volume_attachments", id=GONE, volume=volume, instance=LIVE, host=here, operation=SPAWNED)
    assert [finding for finding in host.audit() if finding.kind == "libvirt_secret"] == []


def test_what_an_instance_elsewhere_has_and_nobody_serves_is_found(host: SettledHost) -> None:
    volume, here = named("volume"), host.config.host
    fields = {"project": "default", "size_gib": 1, "state": "IN_USE", "bootable": False, "source": {}, "meta": {}}
    fields |= {"backend": f"{here}@local", "host": here}
    host.add("volumes", id=volume, name="v", live_name="v", operation=SPAWNED, created_at=1, **fields)
    made = {"volume": volume, "instance": LIVE, "host": "elsewhere", "operation": SPAWNED}
    host.add("volume_attachments", id=GONE, connection={"kind": "iscsi"}, **made)
    (lost,) = [finding for finding in host.audit() if finding.kind == "export"]
    assert (lost.identity, lost.operation) == (f"{here}@local/volume-{volume}", SPAWNED)
    host.change("volume_attachments", {"id": GONE}, connection={"kind": "file"})
    assert [finding for finding in host.audit() if finding.kind == "export"] == []


def test_what_another_host_has_is_its_own_business(host: SettledHost) -> None:
    host.add("hosts", name="elsewhere", capabilities={})
    host.add("allocations", consumer=GONE, host="elsewhere", operation=FAILED)
    host.instance(GONE, SPAWNED, host="elsewhere")
    owner = json.dumps(["elsewhere", 1, 1, "another boot"])
    host.change("claims", {"subject": RUNNING}, owner=owner)
    assert host.audit() == []


def test_a_delete_under_way_answers_for_its_instance(host: SettledHost) -> None:
    host.operation(GONE, "delete", f"instance:i-{LIVE[:8]}", "RUNNING", owner=owner_here(host.config.host))
    host.change("instances", {"uuid": LIVE}, task_state="DELETING")
    host.hypervisor.records.pop(0)
    (host.instances / LIVE).rename(host.instances / "_trash" / GONE)
    host.change("quota_charges", {"consumer": LIVE}, state="RELEASED")
    assert host.audit() == []


def test_a_guest_that_its_worker_lets_go_on_is_not_stuck(host: SettledHost) -> None:
    host.change("instances", {"uuid": LIVE}, task_state=GOING_ON)
    assert host.audit() == []


def test_an_audit_changes_nothing(host: SettledHost) -> None:
    host.directory(GONE, FAILED)
    host.port(GONE, FAILED, 9)
    host.charge(GONE, FAILED, "RESERVED")
    before = sorted(str(path) for path in host.instances.rglob("*"))
    first = host.audit()
    assert len(first) == 3
    assert host.audit() == first
    assert sorted(str(path) for path in host.instances.rglob("*")) == before


def test_findings_come_sorted_by_kind_and_identity(host: SettledHost) -> None:
    host.directory(GONE, FAILED)
    host.domain(GONE, FAILED)
    host.allocation(GONE, FAILED)
    found = [(finding.kind, finding.identity) for finding in host.audit()]
    assert found == sorted(found)
    assert len(found) == 3


def test_an_audit_without_a_database_says_what_is_missing_and_makes_nothing(tmp_path: Path) -> None:
    config = load(overrides={"state_dir": str(tmp_path)}, env={})
    with pytest.raises(DatabaseError, match="virtflow db upgrade"):
        audit(config)
    assert list(tmp_path.iterdir()) == []


def test_an_audit_before_the_first_guest_does_not_start_libvirt(migrated_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="needs libvirt-python")
    shutil.copy(migrated_file, tmp_path / "virtflow.db")
    config = load(overrides={"state_dir": str(tmp_path)}, env={})
    assert [finding for finding in audit(config) if finding.kind != "bridge"] == []
    assert not (tmp_path / "libvirt").exists()
    assert not (tmp_path / "instances").exists()


def test_a_network_that_is_not_ours_is_not_looked_at(host: SettledHost) -> None:
    leave_bridge_alone(host)
    host.change("networks", {"id": NETWORK}, managed_bridge=False, bridge="br0")
    host.taps.made.clear()
    assert host.audit() == []
    assert DELETED in {path.name for path in (host.instances / "_trash").iterdir()}
