"""What is put in order before libvirt's embedded driver is opened."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="needs libvirt-python")

from virtflow.hypervisor.embed_leftovers import clear_leftovers


def status(root: Path, name: str, pid: str) -> Path:
    """As libvirt 9.0 leaves it at ``run/qemu/NAME.xml``, shortened."""
    workspace = root / "lib" / "qemu" / f"domain-1-{name}"
    workspace.mkdir(parents=True)
    (workspace / "master-key.aes").touch()
    path = root / "run" / "qemu" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".pid").write_text("77\n")
    path.write_text(
        f"<!-- auto-generated -->\n<domstatus state='paused' reason='starting up' pid='{pid}'>"
        f"<monitor path='{workspace}/monitor.sock' type='unix'/><domain type='qemu' id='1'/></domstatus>"
    )
    return path


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_guest_whose_starter_was_killed_before_there_was_a_qemu_is_forgotten(tmp_path: Path) -> None:
    status(tmp_path, "unborn", "0")
    alive = status(tmp_path, "alive", "4711")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == {"run/qemu/alive.xml", "run/qemu/alive.pid", "lib/qemu/domain-1-alive/master-key.aes"}
    assert "4711" in alive.read_text()


def test_nothing_outside_the_root_is_removed_whatever_the_status_says(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = status(root, "odd", "0")
    path.write_text(f"<domstatus pid='0'><monitor path='{elsewhere}/monitor.sock'/></domstatus>")
    clear_leftovers(root)
    assert elsewhere.is_dir()
    assert not path.exists()


def test_a_status_that_cannot_be_read_is_left_to_libvirt(tmp_path: Path) -> None:
    path = status(tmp_path, "torn", "0")
    path.write_text("<domstatus pid='0'")
    clear_leftovers(tmp_path)
    assert path.exists()


def test_a_root_that_was_never_used_has_nothing_to_forget(tmp_path: Path) -> None:
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def probe(monitor: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was started with the words that libvirt 9.0 gives to the QEMU it wants to ask."""
    words = ["-machine", "none,accel=kvm:tcg", "-qmp", f"unix:{monitor},server=on,wait=off", "-daemonize"]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_qemu_that_nobody_asks_any_more_is_ended(tmp_path: Path) -> None:
    workspace, others = tmp_path / "root/lib/qemu/qmp-4OHKZ3", tmp_path / "other/lib/qemu/qmp-4OHKZ3"
    for each in (workspace, others):
        each.mkdir(parents=True)
    with probe(workspace / "qmp.monitor") as ours, probe(others / "qmp.monitor") as theirs:
        clear_leftovers(tmp_path / "root")
        assert ours.wait(10) < 0
        assert theirs.poll() is None
    assert not workspace.exists()
    assert others.exists()
