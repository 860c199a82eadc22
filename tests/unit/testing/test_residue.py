"""A snapshot has everything that virtflow makes, and two of the same world are the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.engine.settled_host import FAILED, LIVE, RUNNING, SPAWNED, SettledHost, named
from tests.unit.engine.toys import wait_until
from virtflow.config import load
from virtflow.engine.services import Services
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.testing.residue import Residue

GONE = named("gone")
HOST = load(overrides={"state_dir": "/nowhere"}, env={}).host


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "virtflow.db"
    database = Database(f"sqlite:///{path}")
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def host(migrated: Path, tmp_path: Path) -> Iterator[SettledHost]:
    shutil.copy(migrated, tmp_path / "virtflow.db")
    config = load(overrides={"state_dir": str(tmp_path), "libvirt.uri": "qemu:///system"}, env={})
    database = Database(config.database.url)
    yield SettledHost(config, database)
    database.close()


def look(host: SettledHost) -> Residue:
    services = Services(host.config, host.database, {"hypervisor": host.hypervisor, "taps": host.taps})
    runner: Any = SimpleNamespace(config=host.config, services=services, database=host.database)
    return Residue.around(runner)


def test_a_world_that_nobody_touched_is_the_same(host: SettledHost) -> None:
    assert look(host).difference(look(host)) == []


@pytest.mark.parametrize(
    ("touch", "line"),
    [
        (lambda host: host.directory(GONE, FAILED), f"left: directory {GONE}"),
        (lambda host: host.file(f"{GONE}.tmp.{FAILED}"), f"left: file {GONE}.tmp.{FAILED}"),
        (lambda host: host.file("_trash", GONE, "disk"), f"left: directory _trash/{GONE}"),
        (lambda host: host.file("_base", "c" * 40 + ".part"), f"left: file _base/{'c' * 40}.part"),
        (lambda host: (host.config.state_dir / f"secret.key.tmp.{GONE}").touch(), f"left: file secret.key.tmp.{GONE}"),
        (lambda host: (host.instances / LIVE / "disk").chmod(0o600), f"left: file {LIVE}/disk 600"),
        (
            lambda host: host.file(LIVE, ".virtflow-owner", text=GONE),
            f"left: file {LIVE}/.virtflow-owner 644 of {GONE}",
        ),
        (lambda host: shutil.rmtree(host.instances / LIVE), f"lost: directory {LIVE}"),
        (lambda host: host.domain(GONE, None), f"left: domain {GONE}"),
        (
            lambda host: setattr(host.hypervisor.records[0], "state", "shutoff"),
            f"left: domain {LIVE} {LIVE[:8]} shutoff",
        ),
        (lambda host: host.hypervisor.names.append("virtflow-vf1"), "left: filter virtflow-vf1"),
        (lambda host: host.tap(GONE, SPAWNED), "left: tap vf"),
        (lambda host: host.taps.made.clear(), "lost: bridge br-settled"),
        (lambda host: host.port(GONE, FAILED, 9), "left: row ports"),
        (lambda host: host.charge(GONE, FAILED, "RESERVED"), "left: row quota_charges"),
        (lambda host: host.reference(GONE, FAILED), "left: row base_references"),
        (lambda host: host.allocation(GONE, FAILED), "left: row allocations"),
        (lambda host: host.add("targets", target="x", operation=FAILED), "left: row targets"),
        (
            lambda host: host.add("secrets", ref="s", owner=FAILED, name="n", ciphertext=b"four"),
            'left: row secrets {"ref":"s"',
        ),
        (lambda host: host.remove("secrets", owner=RUNNING), "lost: row secrets"),
        (lambda host: host.change("instances", {"uuid": LIVE}, vm_state="ERROR"), "left: row instances"),
        (lambda host: content(host, f"volume-{GONE}.part"), f"left: content {HOST}@local volume-{GONE}.part"),
        (lambda host: content(host, f"_trash/{GONE}"), f"left: content {HOST}@local trash/{GONE}"),
        (lambda host: host.add("volumes", id=GONE, deleted_at=7), "left: row volumes"),
    ],
)
def test_whatever_changes_is_seen(host: SettledHost, touch: Callable[[SettledHost], object], line: str) -> None:
    before = look(host)
    touch(host)
    assert any(each.startswith(line) for each in before.difference(look(host))), before.difference(look(host))


def content(host: SettledHost, name: str) -> None:
    path = host.config.volumes.path / "local" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_history_caches_locks_and_strangers_are_no_residue(host: SettledHost) -> None:
    before = look(host)
    host.operation(GONE, "spawn", "instance:x", "FINISHED", "REVERTED")
    host.intent(FAILED, "domain", GONE, "CLEARED")
    host.file("_base", "d" * 40)
    host.file("locks", "bridge-x")
    host.taps.taps.append(SimpleNamespace(name="vf22222222222", bridge="b", owner=f"virtflow:{GONE[:-1]}0:p"))
    host.taps.made["br-x"] = f"virtflow:network:{GONE}"
    host.change("ports", {"instance": LIVE}, created_at=7)
    host.add("volumes", id=GONE, deleted_at=7, purged_at=8)
    assert before.difference(look(host)) == []


def test_a_program_that_works_on_something_of_ours_is_seen(host: SettledHost) -> None:
    before = look(host)
    script = host.file(GONE, "wait.sh", text="read line\n")
    present = look(host)
    with subprocess.Popen(["sh", str(script)], stdin=subprocess.PIPE) as process:
        wait_until(lambda: present.difference(look(host)) == [f"left: process sh {GONE}"])
        assert process.stdin is not None
        process.stdin.close()
    assert present.difference(look(host)) == []
    assert before.difference(look(host))


def test_two_worlds_that_differ_in_names_alone_are_the_same_when_renamed() -> None:
    one = Residue(frozenset({"tap vf1 of op-1", "domain 1"}))
    two = Residue(frozenset({"tap vf2 of op-2", "domain 1"}))
    assert one.difference(two) != []
    renamed = one.renamed({"vf1": "<tap>", "op-1": "<op>"})
    assert renamed.difference(two.renamed({"vf2": "<tap>", "op-2": "<op>"})) == []
