"""What a process that was killed with libvirt's embedded driver in it leaves below the driver's root.

Guests are meant to survive it. These are not guests yet, or never become any, and nobody else looks for them.
"""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from pathlib import Path

from virtflow.errors import InvalidDomainXml
from virtflow.hypervisor.safe_xml import parse
from virtflow.processes import end_process

_PATIENCE = 5.0
"""Seconds that a killed QEMU may take to be gone."""


def clear_leftovers(root: Path) -> None:
    """Put the root in order. Only for who holds it: whatever stands here belongs to a process that is gone."""
    _forget_unborn(root)
    _end_probes(root)


def _forget_unborn(root: Path) -> None:
    """Remove the status of guests whose starter was killed before there was a QEMU.

    libvirt 9.0 loads such a status as a running domain with the pid 0 and its start still going on, reconnects only
    where there is a pid, and so never ends that start: every later call for the domain waits for it, and fails.
    """
    for status in (root / "run" / "qemu").glob("*.xml"):
        try:
            found = parse(status.read_text())
        except InvalidDomainXml:
            continue  # libvirt says more about it
        if found.get("pid") == "0":
            monitor = found.find("monitor")
            workspace = Path("" if monitor is None else monitor.get("path", "")).parent
            if workspace.parent == root / "lib" / "qemu":
                shutil.rmtree(workspace, ignore_errors=True)
            status.with_suffix(".pid").unlink(missing_ok=True)
            status.unlink(missing_ok=True)


def _end_probes(root: Path) -> None:
    """End each QEMU without a machine that was started to be asked what it can, and remove its directory.

    libvirt starts one for each program when what it has in its cache does not hold any more. When who asks is killed
    before it has said a word to it, the QEMU waits for ever.
    """
    for workspace in (root / "lib" / "qemu").glob("qmp-*"):
        speaks = partial(_speaks_at, workspace / "qmp.monitor")
        # Not by its pid file: it may not be written yet.
        for pid in filter(speaks, (int(process.name) for process in Path("/proc").glob("[0-9]*"))):
            end_process(pid, speaks, (signal.SIGKILL,), _PATIENCE)
        shutil.rmtree(workspace, ignore_errors=True)


def _speaks_at(monitor: Path, pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"unix:" + os.fsencode(monitor) in (word.partition(b",")[0] for word in command.split(b"\0"))
