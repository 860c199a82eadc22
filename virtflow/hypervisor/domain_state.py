"""libvirt's numbers for the state of a domain, as words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from virtflow.hypervisor.binding import libvirt


class DomainState(StrEnum):
    """``starting``: QEMU is there, its guest has not run yet. libvirt stops one that it finds so."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting down"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"

    @property
    def is_active(self) -> bool:
        """Whether there is a QEMU behind it."""
        return self not in (DomainState.SHUTOFF, DomainState.CRASHED)


_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.SHUTTING_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.SUSPENDED,
}
_STUCK_REASONS = {
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "it is paused after an I/O error",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "its guest crashed",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "its watchdog fired",
}
_SHUTOFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "it shut itself down",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "it was stopped",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "its QEMU crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "it failed to start",
}


@dataclass(frozen=True)
class DomainStatus:
    """A state and libvirt's number of the reason for it."""

    name: str
    state: DomainState
    reason: int

    def why_not_running(self) -> str | None:
        """Why the guest will not run without help; None while it runs or may yet."""
        if self.state is DomainState.PAUSED:
            return _STUCK_REASONS.get(self.reason)
        if self.state is DomainState.SHUTOFF:
            return _SHUTOFF_REASONS.get(self.reason, "it is shut off")
        return None if self.state.is_active else f"it is {self.state}"


@dataclass(frozen=True)
class DomainRecord:
    """``operation`` is the virtflow operation that defined it, None when virtflow did not."""

    uuid: str
    name: str
    state: DomainState
    operation: str | None


def status_of(domain: libvirt.virDomain) -> DomainStatus:
    number, reason = domain.state()
    state = _STATES.get(number, DomainState.UNKNOWN)
    if state is DomainState.PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        state = DomainState.STARTING
    return DomainStatus(str(domain.name()), state, int(reason))


def ask_qemu(domain: libvirt.virDomain) -> bool:
    """Ask QEMU something that libvirt cannot answer by itself; libvirtError when it ends meanwhile, or is not there.

    (libvirt 9.0 reports memoryStats of a QEMU that dies in that moment as if nothing was wrong: a resident set of 0.)
    """
    domain.ioThreadInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return True
