"""What it costs to bring a disk to another host: only its changes, or put together with its base; and a resize's pause.

Bytes are counted at the receiving end of the connection, in a run of its own; times are without that. Both ways end
where the guest could be started: the changes stand on the other host's base, or the disk stands alone.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.hosts import lab_host, on_host
from benchmarks.table import Target, show, show_targets
from tests.lab.proxy import Proxy
from virtflow.images.qemu_img import QemuImg
from virtflow.transfer.push import push
from virtflow.transfer.receiver import Receiver, Receivers

_MIB = 1 << 20
_BASE = 1024
"""MiB, none of them a hole."""
_WRITTEN = (1, 10, 50)
_PORTS = (49700, 49799)
Way = Callable[[Path, Path, Receiver], None]


def transfer(rounds: int) -> list[Target]:
    """Bytes over the wire and wall time of either way, with 1, 10 and 50 percent of a base of 1 GiB written."""
    rows, targets = [], []
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as name:
        directory = Path(name)
        base = directory / "base"
        _fill(base, _BASE)
        shutil.copyfile(base, directory / "base-there")
        for percent in _WRITTEN:
            disk = directory / f"disk-{percent}"
            _write_over(disk, base, _BASE * percent // 100)
            found = {}
            for label, way in (("overlay", _overlay), ("merged", _merged)):
                sent = _arrive(directory, disk, way, counted=True)[1]
                seconds = [_arrive(directory, disk, way)[0] for _ in range(max(1, rounds // 2))]
                found[label] = sent, statistics.median(seconds)
            for label, (sent, took) in found.items():
                rows.append((f"{percent} % written, {label}", f"{sent / _MIB:.0f}", f"{took:.2f}"))
            ratio = found["overlay"][0] / found["merged"][0]
            # What is written is all that has to be sent: the merged disk is the base with it.
            text = f"bytes of the overlay alone against the merged disk, {percent} % written"
            targets.append(Target(text, ratio, percent / 100 * 1.2 + 0.01, most=True))
    show("A disk over a base of 1 GiB, to another host", ("", "MiB sent", "s"), rows)
    show_targets(targets)
    return targets


def resize(rounds: int) -> list[Target]:
    """How long a guest that is resized on its host is off, against a shell script that does the same by hand."""
    with lab_host() as host:
        measured = on_host(host, "benchmarks.resize_downtime", 2 * rounds)
    ours, bare = measured["virtflow"], measured["bare"]
    ratio = statistics.median(own / its for own, its in zip(ours, bare, strict=True))
    rows = [
        ("bare commands", f"{statistics.median(bare) * 1000:.0f}", ""),
        ("virtflow", f"{statistics.median(ours) * 1000:.0f}", f"{ratio:.2f}x"),
    ]
    show("A resize, from the guest's stop to its start", ("", "ms", "to bare commands"), rows)
    targets = [Target("a guest's pause while it is resized against the bare commands", ratio, 1.2, most=True)]
    show_targets(targets)
    return targets


def _fill(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(_MIB))


def _write_over(disk: Path, base: Path, mib: int) -> None:
    """An overlay with so much written, in pieces all over it."""
    QemuImg().create_overlay(disk, base, "raw", _BASE * _MIB)
    step = _BASE // mib
    commands = [word for number in range(mib) for word in ("-c", f"write -q -P {number % 255} {number * step}M 1M")]
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, str(disk)], check=True, stdout=subprocess.DEVNULL)


def _arrive(directory: Path, disk: Path, way: Way, *, counted: bool = False) -> tuple[float, int]:
    """Seconds and, if they are counted, bytes."""
    target = directory / "there"
    target.mkdir()
    receivers = Receivers(directory / "control", "127.0.0.1", _PORTS)
    found = receivers.start("bench", target, "secret")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, target)
        stack.callback(receivers.stop, "bench")
        link = stack.enter_context(Proxy(found.port)) if counted else None
        to = found if link is None else Receiver(found.transport, found.address, link.port, found.path)
        start = time.perf_counter()
        way(disk, target, to)
        return time.perf_counter() - start, 0 if link is None else link.sent


def _overlay(disk: Path, target: Path, to: Receiver) -> None:
    push([disk], to, "secret")
    QemuImg().rebase(target / disk.name, str(disk.parent / "base-there"), "raw", same_content=True)


def _merged(disk: Path, _target: Path, to: Receiver) -> None:
    merged = disk.parent / "merged" / disk.name
    merged.parent.mkdir()
    QemuImg().convert(disk, "qcow2", merged, "qcow2")
    push([merged], to, "secret")
    shutil.rmtree(merged.parent)
