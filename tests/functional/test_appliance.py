"""What needs another kernel than this machine's may have: device mapper, and the kernel's iSCSI initiator.

The tests themselves are in ``inside/``; the appliance runs them, and each must pass.
"""

from __future__ import annotations

import pytest

from tests.lab import appliance, suites
from virtflow.testing.volume_conformance import VolumeDriverConformance

_SECONDS = 1500
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(_SECONDS + 180)]

_GIB = 1 << 30


_ISCSI = ["os_brick_iscsi.py", "volume_operations.py"]
_SUITES = {"thick": ["lvm.py", "-k", "TestThick"], "thin": ["lvm.py", "-k", "TestThin"], "iscsi": _ISCSI}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What became of each test, by suite and name: empty when it passed. They run side by side, each on its disk."""
    if reason := appliance.missing():
        pytest.skip(reason)
    suites.compile_here()
    share = tmp_path_factory.mktemp("share")
    lines = [" ".join(suites.command(name, arguments)) for name, arguments in _SUITES.items()]
    script = "\n".join([*(f"{line} > {name}.log 2>&1 &" for name, line in zip(_SUITES, lines, strict=True)), "wait"])
    appliance.run_inside(["bash", "-c", script], share, disks=(_GIB, _GIB, _GIB), memory_mib=1536, seconds=_SECONDS)
    return {name: suites.outcomes(share, name) for name in _SUITES}


@pytest.mark.parametrize("kind", ["thick", "thin"])
def test_the_driver_lvm_does_what_every_driver_must(kind: str, outcomes: dict[str, dict[str, str]]) -> None:
    tried = outcomes[kind]
    assert {name: problem for name, problem in tried.items() if problem} == {}
    demanded = {name for name in dir(VolumeDriverConformance) if name.startswith("test_")}
    assert demanded <= tried.keys()


def test_logical_volumes_are_made_served_with_chap_connected_by_os_brick_and_taken_away(
    outcomes: dict[str, dict[str, str]],
) -> None:
    assert {name: problem for name, problem in outcomes["iscsi"].items() if problem} == {}
