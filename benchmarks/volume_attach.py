"""A volume goes to a running guest of another host, as an operation, and by hand: tgtadm and ``virsh attach-device``.

The volume is served by tgtd on one host of the lab, with CHAP; two guests on the other host get one each, in turns. By
hand is what has to be done and no more: a target, its LUN and its account, a password in libvirt, the device, live and
for the next start.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.databases import Databases, databases
from benchmarks.table import Target, show, show_targets
from tests.lab import tgt as lab_tgt
from tests.lab.hosts import missing
from tests.lab.processes import wait_until
from tests.lab.serving import WRITER, Place, halting, place_up
from virtflow.requests import VolumeAttachRequest, VolumeCreateRequest, VolumeDetachRequest
from virtflow.testing.guest import build_guest

_MOST = 1.3
_IQN = "iqn.2026-11.bare"
_USER, _PASSWORD = "bare", "correct-horse"
_SECRET = """<secret ephemeral="no" private="yes"><uuid>{uuid}</uuid>
<usage type="iscsi"><target>bare</target></usage></secret>"""
_DISK = """<disk type="network" device="disk"><driver name="qemu" type="raw" cache="none"/>
<source protocol="iscsi" name="{iqn}/1"><host name="{address}" port="{port}"/>
<auth username="{user}"><secret type="iscsi" usage="bare"/></auth></source>
<target dev="vdb" bus="virtio"/></disk>"""
_GIB = 1 << 30
_INSIDE = ("ExportVolume", "ConnectVolume", "AttachLive", "AttachPersistent")
"""The tasks that do what is done by hand."""
_SECONDS = 60.0


def volume_attach(rounds: int) -> list[Target]:
    """Seconds from the request to its end, both ways, on each database; the first of either is not counted."""
    if reason := missing() or lab_tgt.missing():
        raise RuntimeError(reason)
    with databases() as found:
        return [_on(kind, found, rounds) for kind in found.kinds]


def _on(kind: str, found: Databases, rounds: int) -> Target:
    settings = {}
    if found.server is not None and kind == "PostgreSQL":
        settings["database.url"] = found.server.socket_url(found.fresh(kind))
    ours, bare = [], []
    root = tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp")
    with root as name, place_up(Path(name, "lab"), settings) as place:
        place.furnish_guests(build_guest())
        for guest in ("ours", "bare"):
            place.run(halting(guest, image=WRITER, disk_gib=1, memory_mib=128, host=place.compute.name))
            ready = wait_until(lambda guest=guest: "GUEST-READY" in place.console(guest), _SECONDS)
            assert ready, f"the guest does not start: {place.console(guest)}"
        place.run(VolumeCreateRequest(name="volume", size_gib=1))
        by_hand = _Bare(place, "bare")
        for _ in range(rounds + 1):
            ours.append(_ours(place, "ours"))
            bare.append(by_hand.attach())
    return _judged(kind, ours[1:], bare[1:])


def _judged(kind: str, ours: Sequence[tuple[float, float]], bare: Sequence[float]) -> Target:
    columns = {
        "virtflow volume attach, from the request to its end": [whole for whole, _ in ours],
        "of that in tgtd and libvirt": [inside for _, inside in ours],
        "tgtadm and virsh attach-device": bare,
    }
    rows = [(what, *(f"{f(seconds):.3f}" for f in (statistics.median, min, max))) for what, seconds in columns.items()]
    title = f"A volume of another host goes to a running guest, {kind}; seconds"
    show(title, ("", "median", "shortest", "longest"), rows)
    ratio = statistics.median(whole / its for (whole, _), its in zip(ours, bare, strict=True))
    text = f"times tgtadm and virsh attach-device: a volume goes to a running guest, {kind}"
    target = Target(text, ratio, _MOST, most=True)
    show_targets([target])
    return target


def _ours(place: Place, guest: str) -> tuple[float, float]:
    start = time.time()
    asked = place.client.submit(VolumeAttachRequest(name="volume", instance=guest))
    found = place.ended(asked)
    assert found.outcome == "SUCCESS", found.error
    taken = (found.finished_at or 0) / 1e6 - start
    inside = [each.duration_ms or 0 for each in found.tasks if each.name in _INSIDE]
    place.run(VolumeDetachRequest(name="volume"))
    return taken, sum(inside) / 1000


class _Bare:
    """A file beside the volumes, and the commands that give it to a guest."""

    def __init__(self, place: Place, guest: str) -> None:
        self._place = place
        self._guest = place.uuid(guest)
        self._directory = place.workers.lab.root / "bare"
        self._directory.mkdir()
        with (self._directory / "volume").open("wb") as file:
            file.truncate(_GIB)
        secret = _SECRET.format(uuid=uuid.uuid4())
        disk = _DISK.format(iqn=_IQN, address=place.tgt.address, port=place.tgt.port, user=_USER)
        for name, text in (("secret.xml", secret), ("disk.xml", disk), ("password", _PASSWORD)):
            (self._directory / name).write_text(text)
        self._secret = secret.partition("<uuid>")[2].partition("</uuid>")[0]

    def attach(self) -> float:
        tid = str(len(self._place.tgt.targets()) + 100)
        start = time.perf_counter()
        self._tgtadm("--op", "new", "--mode", "target", "--tid", tid, "--targetname", _IQN)
        backing = str(self._directory / "volume")
        self._tgtadm("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--backing-store", backing)
        self._tgtadm("--op", "new", "--mode", "account", "--user", _USER, "--password", _PASSWORD)
        self._tgtadm("--op", "bind", "--mode", "account", "--tid", tid, "--user", _USER)
        self._tgtadm("--op", "bind", "--mode", "target", "--tid", tid, "--initiator-address", "ALL")
        self._virsh("secret-define", str(self._directory / "secret.xml"))
        self._virsh("secret-set-value", self._secret, "--plain", "--file", str(self._directory / "password"))
        self._virsh("attach-device", self._guest, str(self._directory / "disk.xml"), "--live", "--config")
        seconds = time.perf_counter() - start
        self._virsh("detach-device", self._guest, str(self._directory / "disk.xml"), "--live", "--config")
        gone = wait_until(lambda: "vdb" not in self._place.sizes("bare"), _SECONDS)
        assert gone, "the guest does not let go of its disk"
        self._virsh("secret-undefine", self._secret)
        self._tgtadm("--op", "delete", "--mode", "target", "--tid", tid, "--force")
        self._tgtadm("--op", "delete", "--mode", "account", "--user", _USER)
        return seconds

    def _tgtadm(self, *words: str) -> None:
        _run("tgtadm", "-C", str(self._place.tgt.control), "--lld", "iscsi", *words)

    def _virsh(self, *words: str) -> None:
        _run("virsh", "-q", "-c", self._place.compute.local_uri, *words)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
