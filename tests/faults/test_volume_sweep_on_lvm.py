"""Whatever breaks in an operation on a logical volume, thin or thick: nothing is left behind.

It runs in the appliance, where Python is slow. Usually a few cases are tried; VIRTFLOW_WHOLE_SWEEP=1 takes every task,
in one appliance per processor.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.functional.inside.lvm_sweep import HERE, LIST, cases
from tests.lab import appliance, suites

_WHOLE = bool(os.environ.get("VIRTFLOW_WHOLE_SWEEP"))
_FEW = [
    (f"{HERE}:THIN_FROM_IMAGE", "volume-create.host/CreateVolumeFromImage/kill-after"),
    (f"{HERE}:THIN_FROM_SNAPSHOT", "volume-create.host/CloneVolume/revert-always-fails"),
    (f"{HERE}:THIN_DELETE", "volume-delete.host/TrashVolume/kill-after"),
]
CASES = cases()
CHOSEN = CASES if _WHOLE else [case for case in CASES if case in _FEW]
_PARTS = (os.cpu_count() or 1) if _WHOLE else 1
_SECONDS = 900 + 120 * len(CHOSEN)
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(_SECONDS + 300)]

_DISKS = (16 << 30,)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each case, by reference and name: empty when it passed."""
    if reason := appliance.missing():
        pytest.skip(reason)
    suites.compile_here()
    items = [item for item in request.session.items if item.nodeid.startswith(f"{request.node.nodeid}::")]
    wanted = [item.callspec.params["case"] for item in items if hasattr(item, "callspec")]
    # Each part is what stands together: preparing a scenario takes as long as a case.
    size = -(-len(wanted) // _PARTS)
    parts = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    with ThreadPoolExecutor(len(parts)) as threads:
        shares = [tmp_path_factory.mktemp("share") for _ in parts]
        found = list(threads.map(_try, parts, shares))
    return {name: outcome for each in found for name, outcome in each.items()}


def _try(cases: list[tuple[str, str]], share: Path) -> dict[str, str]:
    """In one appliance of one processor: a second one would make each slower."""
    (share / "cases").write_text(json.dumps(cases))
    command = suites.command("sweep", ["lvm_sweep.py", "-v", "-s"], {LIST: "/run/share/cases"})
    line = ["bash", "-c", f"exec {' '.join(command)} > sweep.log 2>&1"]
    appliance.run_inside(line, share, disks=_DISKS, memory_mib=1536, seconds=_SECONDS, processors=1)
    return suites.outcomes(share, "sweep")


def test_the_cases_that_are_always_tried_are_there() -> None:
    assert [case for case in _FEW if case not in CASES] == []


@pytest.mark.parametrize("case", CHOSEN, ids=["{}:{}".format(*each) for each in CHOSEN])
def test_an_operation_on_a_logical_volume_that_breaks_leaves_nothing_behind(
    case: tuple[str, str], outcomes: dict[str, str]
) -> None:
    ended = [outcome for name, outcome in outcomes.items() if name.endswith("[{}:{}]".format(*case))]
    assert ended == [""]
