"""The task that injects: what it asks for, and that it never works on a disk that was left half-way."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from virtflow.activity import IDLE
from virtflow.injection import leftovers
from virtflow.injection.plan import GuestItems, InjectionResult
from virtflow.metadata.drive_contents import DriveContents
from virtflow.tasks.base import RevertPolicy, Task, run_execute, run_revert
from virtflow.tasks.injection import InjectFiles

OPERATION = "11111111-2222-3333-4444-555555555555"
KEY = "ssh-ed25519 AAAA"


class MakeDisk(Task):
    """Stands for whichever task makes the root disk."""

    default_provides = "root_disk"

    def execute(self, spec: dict[str, Any], instance_dir: str, sized_base: str, operation: str) -> dict[str, Any]:
        path = Path(instance_dir) / "disk"
        assert not path.exists()
        path.write_text(f"fresh on {sized_base}")
        return {"path": str(path), "format": "qcow2", "size": 1}


class Injector:
    """Writes a word into the disk, and dies of what it is told."""

    def __init__(self, death: BaseException | None = None) -> None:
        self.death = death
        self.asked: dict[str, Any] = {}

    def interrupted(self, disk: Path, operation: str) -> bool:
        return leftovers.marker(disk, operation).exists()

    def discard(self, disk: Path, operation: str) -> None:
        leftovers.remove(leftovers.Leftover(leftovers.marker(disk, operation), operation))

    def inject(
        self, disk: Path, disk_format: str, partition: int, items: GuestItems, operation: str, **more: Any
    ) -> InjectionResult:
        self.asked = {"format": disk_format, "partition": partition, "items": items, **more}
        leftovers.marker(disk, operation).mkdir()
        disk.write_text(disk.read_text() + " injected")
        if self.death is not None:
            raise self.death
        leftovers.marker(disk, operation).rmdir()
        return InjectionResult(items.wanted(), {}, "fuse")


class Secrets:
    def __init__(self) -> None:
        files = [{"path": "/etc/x", "content": base64.b64encode(b"hi").decode()}]
        self.values = {"ref1": json.dumps(files).encode(), "ref2": b"sesame", "ref3": KEY.encode()}

    def get(self, reference: str) -> bytes:
        return self.values[reference]


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "disk").write_text("fresh on base")
    return {
        "spec": {
            "injection": {"partition": -1, "items": ["key", "metadata", "files"], "mandatory": ["files"]},
            "meta": {"a": "b"},
        },
        "root_disk": {"path": str(tmp_path / "disk"), "format": "qcow2", "size": 1},
        "vifs": [],
        "secret_refs": {"files": "ref1", "admin_password": "ref2", "ssh_keys": "ref3"},
        "operation": OPERATION,
        "secrets": Secrets(),
        "injector": Injector(),
        "drive_contents": DriveContents(),
        "instance_dir": str(tmp_path),
        "sized_base": "base",
    }


def test_it_requires_what_its_maker_requires() -> None:
    assert InjectFiles(MakeDisk()).requires >= {"instance_dir", "sized_base", "root_disk", "injector"}


def test_only_what_is_switched_on_is_asked_for(arguments: dict[str, Any]) -> None:
    result = run_execute(InjectFiles(MakeDisk()), arguments, IDLE)
    assert result == ["key", "metadata", "files"]
    asked = arguments["injector"].asked
    assert asked["items"] == GuestItems(keys=(KEY,), metadata={"a": "b"}, files={"/etc/x": b"hi"})
    assert (asked["format"], asked["partition"], asked["mandatory"]) == ("qcow2", -1, frozenset(("files",)))


def test_a_half_injected_disk_is_made_anew_before_it_is_injected(arguments: dict[str, Any], tmp_path: Path) -> None:
    task = InjectFiles(MakeDisk())
    arguments["injector"].death = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_execute(task, arguments, IDLE)
    assert (tmp_path / "disk").read_text() == "fresh on base injected"
    arguments["injector"] = Injector()
    assert run_execute(task, arguments, IDLE) == ["key", "metadata", "files"]
    assert (tmp_path / "disk").read_text() == "fresh on base injected"
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_revert_takes_away_the_marker_and_leaves_the_disk_to_its_maker(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    task = InjectFiles(MakeDisk())
    arguments["injector"].death = RuntimeError("no")
    failure = run_execute(task, arguments, IDLE)
    for result in (failure, None, ["key"]):
        assert run_revert(task, arguments, result, {}, IDLE, RevertPolicy(1)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_what_it_is_about_to_make_is_announced_with_the_operation(arguments: dict[str, Any]) -> None:
    (intent,) = InjectFiles(MakeDisk()).intents(**arguments)
    assert intent.identity == f"{arguments['instance_dir']}/disk.injecting.{OPERATION}"
