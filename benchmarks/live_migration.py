"""A running guest on its way to another host, as an operation, and by hand: ``virsh migrate`` with the same flags.

Two guests with the same memory and the same disks go to and fro between two hosts of the lab, in turns, each alone on
them. By hand there is no more than has to be: a directory, an empty disk over a base that is there, a copy of the
config drive. Both end when the guest is known to run on the other host; what is cleaned up afterwards is not counted.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Target, show, show_targets
from tests.lab.hosts import LabHost, missing
from tests.lab.migrating import TICKING, Movers, movers_up
from virtflow.testing.guest import build_guest

_MEMORY = 256
"""MiB; the guest's own part of it is about a quarter."""
_WRITTEN = 256
"""MiB that the disk has over its base."""
_DISK = 1 << 30
_MOST = 1.15
_INSIDE = Path("/var/lib/libvirt")
"""What each host of the lab has for itself."""
_FLAGS = ("--live", "--p2p", "--persistent", "--auto-converge", "--copy-storage-inc", "--migrate-disks", "vda")


@dataclass(frozen=True)
class Went:
    """Seconds: from the request until it is over, of that in libvirt's hands, and for which the guest was halted."""

    whole: float
    migrating: float
    downtime: float


def live_migration(rounds: int) -> list[Target]:
    """Each way there and back, so many times as there are rounds; the first of either is not counted."""
    if reason := missing():
        raise RuntimeError(reason)
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name, movers_up(Path(name, "lab")) as movers:
        movers.furnish_guests(build_guest())
        movers.spawn("ours", "labhost1", TICKING, memory_mib=_MEMORY, networks=[])
        movers.mark("labhost1", "ours", mib=_WRITTEN)
        movers.wait_ticks("labhost1", "ours", 1)
        by_hand = Bare(movers, "ours")
        for _ in range(rounds + 1):
            ours.append(_ours(movers, "ours"))
            bare.append(by_hand.migrate())
    return _judged(ours[1:], bare[1:])


def _judged(ours: Sequence[Went], bare: Sequence[Went]) -> list[Target]:
    columns = {
        "a live migration, from the request to its end": [each.whole for each in ours],
        "of that in libvirt": [each.migrating for each in ours],
        "by hand, all of it": [each.whole for each in bare],
        "virsh migrate": [each.migrating for each in bare],
    }
    rows = [(what, *_spread(seconds), "") for what, seconds in columns.items()]
    rows += [
        ("downtime", *_spread([each.downtime for each in ours]), ""),
        ("downtime, by hand", *_spread([each.downtime for each in bare]), ""),
    ]
    title = f"A guest of {_MEMORY} MiB with {_WRITTEN} MiB on its disk goes to another host; seconds"
    show(title, ("", "median", "shortest", "longest"), [row[:4] for row in rows])
    pairs = list(zip(ours, bare, strict=True))
    targets = [
        Target(
            "a live migration against the same by hand", _ratio([(o.whole, b.whole) for o, b in pairs]), _MOST, True
        ),
        Target("libvirt's part of it", _ratio([(o.migrating, b.migrating) for o, b in pairs]), _MOST, True),
        Target("the guest's downtime", _ratio([(o.downtime, b.downtime) for o, b in pairs]), _MOST, True),
    ]
    show_targets(targets)
    return targets


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(own / its for own, its in pairs)


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    return f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}"


def _ours(movers: Movers, name: str) -> Went:
    start = time.time()
    asked = movers.migrate(name)
    found = movers.ended(asked)
    took = next(task for task in found.tasks if task.name == "Migrate")
    downtime = movers.went(asked)["downtime_ms"]
    assert movers.settled() == []
    return Went((found.finished_at or 0) / 1e6 - start, (took.duration_ms or 0) / 1000, downtime / 1000)


class Bare:
    """A copy of a guest that virtflow has made, and the commands that move it."""

    def __init__(self, movers: Movers, model: str) -> None:
        self._movers = movers
        self._here, self._there = movers.hosts.values()
        theirs = movers.directory(self._here.name, model)
        made = _outside(self._here, "bare")
        made.mkdir()
        base = _backing(theirs / "disk")
        for host in movers.hosts.values():
            _run("cp", "--sparse=always", str(base), str(_outside(host, "base")))
        _run("cp", "--sparse=always", str(theirs / "disk"), str(theirs / "disk.config"), str(made))
        _run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", f"{_INSIDE}/base", str(made / "disk"))
        xml = movers.virsh(self._here.name, "dumpxml", "--inactive", model)
        xml = xml.replace(str(theirs), f"{_INSIDE}/bare").replace(movers.instance(model).uuid, str(uuid.uuid4()))
        xml = re.sub(r"<name>.*?</name>", "<name>bare</name>", xml, count=1)
        file = _outside(self._here, "bare.xml")
        file.write_text(re.sub(r"<metadata>.*?</metadata>", "", xml, flags=re.DOTALL))
        self._virsh(self._here, "define", str(file))
        self._virsh(self._here, "start", "bare")

    def migrate(self) -> Went:
        here, there = self._here, self._there
        start = time.perf_counter()
        made = _outside(there, "bare")
        made.mkdir()
        overlay = ("-f", "qcow2", "-u", "-F", "raw", "-b", f"{_INSIDE}/base")
        _run("qemu-img", "create", "-q", *overlay, str(made / "disk"), str(_DISK))
        _run("cp", str(_outside(here, "bare") / "disk.config"), str(made))
        begun = time.perf_counter()
        self._virsh(here, "migrate", *_FLAGS, "bare", there.uri, f"tcp://{there.address}")
        end = time.perf_counter()
        told = self._virsh(there, "domjobinfo", "--completed", "bare")
        downtime = re.search(r"Total downtime:\s+(\d+)\s+ms", told)
        assert downtime, told
        self._virsh(here, "undefine", "bare")
        _run("rm", "-r", str(_outside(here, "bare")))
        self._here, self._there = there, here
        return Went(end - start, end - begun, int(downtime[1]) / 1000)

    @staticmethod
    def _virsh(host: LabHost, *words: str) -> str:
        return _run("virsh", "-q", "-c", host.local_uri, *words)


def _outside(host: LabHost, name: str) -> Path:
    """Where a file of the host's ``/var/lib/libvirt`` is for everybody else."""
    return host.root / "var" / name


def _backing(disk: Path) -> Path:
    told = _run("qemu-img", "info", "-U", "-f", "qcow2", str(disk))
    found = re.search(r"^backing file: (.*)$", told, re.MULTILINE)
    assert found, told
    return Path(found[1])


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
