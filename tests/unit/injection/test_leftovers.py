"""What a killed injection leaves: found by its name, removed with its processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtflow.injection import leftovers
from virtflow.injection.injector import Injector
from virtflow.injection.leftovers import Leftover


def left(instances: Path, instance: str = "i1", operation: str = "op1") -> Path:
    path = instances / instance / f"disk.injecting.{operation}"
    path.mkdir(parents=True)
    return path


def test_leftovers_are_found_with_their_disk_and_operation(tmp_path: Path) -> None:
    path = left(tmp_path)
    (tmp_path / "i1" / "disk").touch()
    left(tmp_path, "i2", "op2")
    found = leftovers.find(tmp_path)
    assert [(each.path.parent.name, each.operation) for each in found] == [("i1", "op1"), ("i2", "op2")]
    assert found[0] == Leftover(path, "op1")
    assert found[0].disk == tmp_path / "i1" / "disk"


def test_a_leftover_is_removed_and_its_disk_stays(tmp_path: Path) -> None:
    path = left(tmp_path)
    disk = tmp_path / "i1" / "disk"
    disk.write_bytes(b"disk")
    assert Injector().interrupted(disk, "op1")
    assert not Injector().interrupted(disk, "op2")
    Injector().discard(disk, "op2")
    assert path.exists()
    Injector().discard(disk, "op1")
    Injector().discard(disk, "op1")
    leftovers.remove(Leftover(path, "op1"))
    assert [each.name for each in disk.parent.iterdir()] == ["disk"]
    assert disk.read_bytes() == b"disk"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts something that is called like qemu's daemon and runs until it is killed."""
    program = tmp_path / "qemu-storage-daemon"
    shutil.copy(shutil.which("tail") or pytest.skip("tail is missing"), program)
    (tmp_path / "log").touch()
    started: list[subprocess.Popen[bytes]] = []

    def start(name: Path, argument: Path) -> subprocess.Popen[bytes]:
        command = [name, "-f", tmp_path / "log", argument]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_daemon_that_outlived_it_is_killed_and_no_other(
    tmp_path: Path, daemon: Callable[..., subprocess.Popen[bytes]]
) -> None:
    leftover = Leftover(left(tmp_path), "op1")
    other = left(tmp_path, "i2", "op2")
    mine = daemon(tmp_path / "qemu-storage-daemon", leftover.path / "disk.raw")
    strangers = [daemon(tmp_path / "qemu-storage-daemon", other), daemon(Path("/usr/bin/tail"), leftover.path)]
    while not list(leftovers.processes(leftover)):
        assert mine.poll() is None
        time.sleep(0.01)
    reaper = threading.Thread(target=mine.wait)
    reaper.start()
    leftovers.remove(leftover)
    reaper.join()
    assert mine.returncode == -signal.SIGKILL
    assert [stranger.poll() for stranger in strangers] == [None, None]
    assert not leftover.path.exists()
