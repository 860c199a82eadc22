"""Copies of a running guest's disk as it is at one moment, made by QEMU while the guest goes on.

libvirt's backup job in push mode: the domain stays defined and as it is, whatever becomes of us, and the job goes on
when the process that began it dies. Reference: https://libvirt.org/formatbackup.html
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]  # lxml-stubs leaves it out

from virtflow.activity import IDLE, Activity
from virtflow.errors import HypervisorError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.domain_state import ask_qemu
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.safe_xml import parse

_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 10.0
"""How long a guest that has stopped may be called running."""
_AGENT_SECONDS = 60
_ATTEMPTS = 3

DONE, STOPPED, _LOST = "done", "stopped", "lost"


class DiskBackups:
    """Of the domains of one libvirt. HypervisorError when libvirt, QEMU or the guest's agent refuses."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    def copy(
        self,
        domain: str,
        target: str,
        path: Path,
        create: Callable[[], None],
        *,
        quiesce: bool = False,
        activity: Activity = IDLE,
    ) -> bool:
        """Copy the disk ``target`` (vda ...) into the qcow2 file ``path``, which stands alone.

        ``create`` makes that file, empty and as large as the disk.

        It has what the disk had when the copying began; ``quiesce``: with the guest's file systems frozen at that
        moment. A job of this ``path`` that is under way is gone on with; a file that nobody writes any more proves
        nothing, and is made anew. False when no guest runs, or it stops before the copy is complete.
        """
        for _ in range(_ATTEMPTS):
            if not self._active(domain):
                return False
            if self._under_way(domain) != str(path):
                self._check_free(domain)
                path.unlink(missing_ok=True)
                create()
                self._begin(domain, target, path, quiesce=quiesce)
            ended = self._wait(domain, activity)
            if ended != _LOST:
                return ended == DONE
        raise HypervisorError(action="copy a disk of", domain=domain, reason="nobody knows how the copy ended", code=0)

    def abort(self, domain: str, path: Path, activity: Activity = IDLE) -> None:
        """End the job that writes ``path``, and wait until it has ended. None under way is fine."""
        while self._under_way(domain) == str(path):
            self._hypervisor.with_domain("stop copying a disk of", domain, _abort)
            activity.sleep(_POLL_SECONDS)

    def thaw(self, domain: str) -> None:
        """Let the guest write to its file systems again; one that cannot be asked was never frozen by us."""
        with suppress(HypervisorError):
            self._hypervisor.with_domain("thaw", domain, lambda each: each.fsThaw())

    def _begin(self, domain: str, target: str, path: Path, *, quiesce: bool) -> None:
        def begin(found: Any) -> bool:
            # libvirt is to make no file: what it does between two looks at QEMU cannot be found again if it dies there.
            found.backupBegin(_description(found, target, path), None, libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)
            return True

        if not quiesce:
            self._hypervisor.with_domain("copy a disk of", domain, begin)
            return
        self.thaw(domain)  # whoever froze it before may have been killed
        try:
            self._hypervisor.with_domain("freeze the file systems of", domain, _freeze)
            self._hypervisor.with_domain("copy a disk of", domain, begin)
        finally:
            self.thaw(domain)

    def _check_free(self, domain: str) -> None:
        """Raise HypervisorError when libvirt holds a backup of which it knows nothing.

        That is what the death of libvirt leaves (of ours, where it is embedded) in the moment in which it begins one.
        """

        def look(found: Any) -> bool:
            try:
                found.jobStats()
            except libvirt.libvirtError as error:
                return bool(error.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR)
            return True

        if self._hypervisor.with_domain("look at the jobs of", domain, look) is False:
            reason = "libvirt died while it began to copy one before; stop the guest and start it again"
            raise HypervisorError(action="copy a disk of", domain=domain, reason=reason, code=0)

    def _wait(self, domain: str, activity: Activity) -> str:
        while True:
            try:
                stats = self._hypervisor.with_domain("copy a disk of", domain, lambda each: dict(each.jobStats()))
            except HypervisorError:
                if self._stopped(domain):
                    return STOPPED
                raise
            if stats is None:
                return STOPPED
            if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
                return self._ended(domain)
            if stats.get("disk_total"):
                activity.report(stats["disk_processed"], stats["disk_total"])
            activity.sleep(_POLL_SECONDS)

    def _ended(self, domain: str) -> str:
        """How the job that was under way a moment ago has ended."""
        if not self._active(domain):
            return STOPPED
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED
        stats = self._hypervisor.with_domain("copy a disk of", domain, lambda each: dict(each.jobStats(flags)))
        if stats is None or stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
            return _LOST
        if stats.get("success"):
            return DONE
        if self._stopped(domain):
            return STOPPED
        reason = stats.get("errmsg") or "the copy has failed"
        raise HypervisorError(action="copy a disk of", domain=domain, reason=reason, code=0)

    def _under_way(self, domain: str) -> str | None:
        """The file that a job of the domain writes at this moment."""

        def look(found: Any) -> str | None:
            try:
                xml = found.backupGetXMLDesc()
            except libvirt.libvirtError as error:
                if error.get_error_code() in _NO_JOB:
                    return None
                raise
            target = parse(xml).find("disks/disk[@backup='yes']/target")
            return None if target is None else target.get("file")

        return self._hypervisor.with_domain("look at the jobs of", domain, look)

    def _active(self, domain: str) -> bool:
        state = self._hypervisor.state(domain)
        return state is not None and state.is_active

    def _stopped(self, domain: str) -> bool:
        """Whether the guest has stopped: libvirt notices a moment later than whoever speaks with QEMU."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self._active(domain):
            if self._is_lost(domain):
                self._hypervisor.destroy(domain)
                return True
            if self._answers(domain) or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _is_lost(self, domain: str) -> bool:
        """Whether libvirt calls a guest running with which it can speak no more, and whose process is not there.

        So it stays when QEMU is killed with a question unread: the connection is reset then, instead of closed.
        """
        with suppress(HypervisorError):
            control = self._hypervisor.with_domain("ask", domain, lambda each: each.controlInfo()[0])
            return control == libvirt.VIR_DOMAIN_CONTROL_ERROR and not _has_process(domain)
        return False

    def _answers(self, domain: str) -> bool:
        try:
            return self._hypervisor.with_domain("ask", domain, ask_qemu) is not None
        except HypervisorError:
            return False


def _has_process(domain: str) -> bool:
    """Whether there is a QEMU of this domain on this host."""
    words = b"-uuid\0" + domain.encode() + b"\0"
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if words in process.read_bytes():
                return True
    return False


def _description(domain: Any, target: str, path: Path) -> str:
    """One disk is copied; every other one has to be named to be left out."""
    disks = E.disks()
    for found in parse(str(domain.XMLDesc(0))).iterfind("devices/disk/target"):
        name = str(found.get("dev"))
        if name == target:
            copied = E.disk(E.target(file=str(path)), E.driver(type="qcow2"), name=name, backup="yes", type="file")
            disks.append(copied)
        else:
            disks.append(E.disk(name=name, backup="no"))
    return etree.tostring(E.domainbackup(disks, mode="push"), encoding="unicode")


def _freeze(domain: Any) -> None:
    domain.agentSetResponseTimeout(_AGENT_SECONDS, 0)
    domain.fsFreeze()


def _abort(domain: Any) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_FAILED):
            raise


_NO_JOB = (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID)
