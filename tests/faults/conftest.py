"""Sweeps: the cases come from the flows themselves, all selected ones are tried at once, each test awaits its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from virtflow.testing.sweep import CaseResult, find_scenario
from virtflow.testing.sweep_cases import task_cases
from virtflow.testing.sweep_workers import SweepWorkers

WORKERS_PER_PROCESSOR = 2
"""A case is mostly waiting for QEMU to end."""


def workers_here() -> int:
    """How many this process may have, when pytest-xdist runs tests in others beside it."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return max(2, WORKERS_PER_PROCESSOR * (os.cpu_count() or 1) // processes)


def missing() -> str | None:
    """What real hosts need and this machine lacks; None when it has everything."""
    if importlib.util.find_spec("libvirt") is None:
        return "libvirt-python is missing"
    if os.geteuid() != 0:
        return "libvirt's embedded driver needs root"
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is missing (apt install qemu-system-x86)"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing"
    if not list(Path("/usr/lib").glob("**/libvirt/connection-driver/libvirt_driver_qemu.so")):
        return "libvirt's QEMU driver is missing (apt install libvirt-daemon)"
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``swept`` is run for every case of the scenarios that its module names.

    A module whose sweep would take too long for every day says with ``EVERY`` that each n-th case is enough of it, or
    with ``TRIED`` which ways to break a task are; VIRTFLOW_WHOLE_SWEEP=1 takes them all.
    """
    if "swept" in metafunc.fixturenames:
        scenarios: dict[str, str] = metafunc.module.SCENARIOS
        whole = bool(os.environ.get("VIRTFLOW_WHOLE_SWEEP"))
        every = 1 if whole else getattr(metafunc.module, "EVERY", 1)
        tried = None if whole else getattr(metafunc.module, "TRIED", None)
        found = [
            (name, ref, case.name)
            for name, ref in scenarios.items()
            for case in task_cases(find_scenario(ref))[::every]
            if tried is None or case.name.rpartition("/")[2] in tried
        ]
        metafunc.parametrize(
            "swept",
            [(reference, case) for _, reference, case in found],
            ids=[f"{name}:{case}" for name, _, case in found],
            indirect=True,
        )


@pytest.fixture(scope="session")
def workers() -> Iterator[SweepWorkers]:
    if reason := missing():
        pytest.skip(reason)
    with SweepWorkers(workers_here()) as started:
        yield started


@pytest.fixture(scope="module")
def _results(request: pytest.FixtureRequest, workers: SweepWorkers) -> dict[tuple[str, str], Future[CaseResult]]:
    """Every selected case of the module, begun in the order of its tests: other modules need the workers too."""
    items = [item for item in request.session.items if item.nodeid.startswith(f"{request.node.nodeid}::")]
    wanted = [item.callspec.params.get("swept") for item in items if hasattr(item, "callspec")]
    return {each: workers.submit(*each) for each in wanted if each is not None}


@pytest.fixture
def swept(request: pytest.FixtureRequest, _results: dict[tuple[str, str], Future[CaseResult]]) -> CaseResult:
    """What became of this test's case."""
    return _results[request.param].result()
