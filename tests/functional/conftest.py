"""Fixtures of the functional tests: libvirt's embedded driver with real QEMU.

``embed_root``         the one embed root of this process (libvirt allows no second one)
``hypervisor``         a Hypervisor on it; domains that a test leaves are taken away after the test
``other_embed_root``   a root for other processes that a test starts; it knows the host's capabilities already
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.processes import stop
from virtflow.testing import known_qemus

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor


def missing() -> str | None:
    """What libvirt's embedded driver needs and this machine lacks; None when it has everything."""
    if importlib.util.find_spec("libvirt") is None:
        return "libvirt-python is missing"
    if os.geteuid() != 0:
        return "libvirt's embedded driver needs root"
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is missing (apt install qemu-system-x86)"
    if not list(Path("/usr/lib").glob("**/libvirt/connection-driver/libvirt_driver_qemu.so")):
        return "libvirt's QEMU driver is missing (apt install libvirt-daemon)"
    return None


@pytest.fixture(scope="session")
def embed_root() -> Iterator[Path]:
    if reason := missing():
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="vf-embed-"))
    known_qemus.tell(root / "cache")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def _session_hypervisor(embed_root: Path) -> Iterator[Hypervisor]:
    from virtflow.hypervisor.hypervisor import Hypervisor

    hypervisor = Hypervisor("qemu:///embed", embed_root)
    hypervisor.capabilities()
    known_qemus.learn(embed_root / "cache")
    yield hypervisor
    _remove_domains(hypervisor)
    hypervisor.close()


@pytest.fixture
def hypervisor(_session_hypervisor: Hypervisor) -> Iterator[Hypervisor]:
    yield _session_hypervisor
    _remove_domains(_session_hypervisor)


@pytest.fixture
def other_embed_root(embed_root: Path, hypervisor: Hypervisor) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="vf-other-"))
    shutil.copytree(embed_root / "cache", root / "cache")
    yield root
    for pid in qemus_below(root):
        stop(pid)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def qemus() -> Callable[[Path], list[int]]:
    """``qemus(root)``: pids of the QEMU processes that a driver with this embed root has started."""
    return qemus_below


def qemus_below(root: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in command.split(b"\0")[0] and os.fsencode(root) + b"/" in command:
            found.append(int(process.name))
    return found


def _remove_domains(hypervisor: Hypervisor) -> None:
    for domain in hypervisor.domains():
        hypervisor.undefine(domain.uuid)
        hypervisor.destroy(domain.uuid)
