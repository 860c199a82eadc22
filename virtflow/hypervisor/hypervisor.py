"""The domains and filters of one libvirt, every call safe to repeat: what is so already counts as done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from virtflow.activity import IDLE, Activity
from virtflow.errors import HypervisorError, HypervisorUnreachable, InvalidDomainXml, NetworkError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.capabilities import HostCapabilities, host_capabilities
from virtflow.hypervisor.connection import embed_root_of
from virtflow.hypervisor.domain_state import DomainRecord, DomainState, DomainStatus, ask_qemu, status_of
from virtflow.hypervisor.domain_xml import METADATA_NAMESPACE
from virtflow.hypervisor.safe_xml import parse
from virtflow.hypervisor.session import Session, domain_error, message

T = TypeVar("T")

_POLL_SECONDS = 0.05
_SHUTDOWN_POLL_SECONDS = 0.2
_POWER_BUTTON_SECONDS = 10.0
"""How often the power button is pressed: a guest that is still booting misses it."""

_SETTLE_SECONDS = 30.0

_SYSTEM_LOGS = Path("/var/log/libvirt/qemu")
_LOG_BYTES = 4096
_LOG_LINES = 3

_UNKNOWN_FLAGS = (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED)
_UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA,
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
    0,
)
"""All that libvirt may keep beside a definition; then what drivers without NVRAM and checkpoints know; then nothing."""


class Hypervisor:
    """Thread-safe; connects at the first call. Every method may also raise HypervisorUnreachable.

    ``wait_seconds``: how long to wait for another process to let go of ``embed_root``.
    """

    def __init__(self, uri: str, embed_root: Path | None = None, *, wait_seconds: float = 30.0) -> None:
        self.uri = uri
        self._embed_root = embed_root
        self._session = Session(uri, embed_root, wait_seconds)
        self._capabilities: HostCapabilities | None = None

    def capabilities(self) -> HostCapabilities:
        """What the host can run. Asked once; the first answer of a fresh embed root takes seconds."""
        if self._capabilities is None:
            try:
                self._capabilities = self._session.call(_read_capabilities)
            except (libvirt.libvirtError, InvalidDomainXml) as error:
                raise HypervisorUnreachable(uri=self.uri, reason=f"it does not say what it can run: {error}") from error
        return self._capabilities

    def close(self) -> None:
        """Close the connection; guests keep running, and the next call opens it again."""
        self._session.close()

    # -- definitions --------------------------------------------------------------------------------------------------

    def define(self, xml: str) -> None:
        """Define the domain, or redefine the one of the same uuid. libvirt checks ``xml`` against its schema.

        Raises HypervisorError, also when a domain of another uuid has the name.
        """
        name = parse(xml).findtext("name") or "without a name"

        def define(connection: libvirt.virConnect) -> None:
            try:
                connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _UNKNOWN_FLAGS:
                    raise
                connection.defineXML(xml)

        self._call("define", name, define)

    def domain_xml(self, uuid: str) -> str | None:
        """The definition, such that ``define`` takes it; None when there is no such domain. Leaves out passwords."""
        return self._if_there("describe", uuid, lambda domain: str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))

    def undefine(self, uuid: str) -> None:
        """Remove the definition, with managed save, snapshot metadata and NVRAM. A running guest keeps running."""
        self._if_there("undefine", uuid, _undefine)

    def domains(self) -> list[DomainRecord]:
        """All of them, running or not, virtflow's or not, ordered by name."""
        found = self._call("list", "of this host", lambda connection: connection.listAllDomains(0))
        records = (self._record(domain) for domain in found)
        return sorted((record for record in records if record is not None), key=lambda record: record.name)

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self, uuid: str, paused: bool = False) -> None:
        """Start the domain; with ``paused``, leave its guest halted. One found paused is resumed unless ``paused``."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0

        def start(connection: libvirt.virConnect) -> None:
            domain = connection.lookupByUUIDString(uuid)
            _let_settle(domain)
            _let_die(domain)
            if not domain.isActive():
                _unless_so(domain.isActive, lambda: domain.createWithFlags(flags))
            elif not paused:
                _resume(domain)

        self._call("start", uuid, start)

    def suspend(self, uuid: str) -> bool:
        """Halt a running guest; whether there was one that ran."""

        def suspend(domain: libvirt.virDomain) -> bool:
            if status_of(domain).state is not DomainState.RUNNING:
                return False
            _unless_so(lambda: status_of(domain).state is DomainState.PAUSED, domain.suspend)
            return True

        return bool(self._if_there("suspend", uuid, suspend))

    def resume(self, uuid: str) -> None:
        """Let a paused guest run."""
        self._call("resume", uuid, lambda connection: _resume(connection.lookupByUUIDString(uuid)))

    def destroy(self, uuid: str) -> None:
        """Pull the plug. libvirt itself waits until QEMU is gone, which takes 0.2 s and more."""
        self._if_there("destroy", uuid, lambda domain: _unless_so(lambda: not domain.isActive(), domain.destroy))

    def shutdown(self, uuid: str, grace_seconds: float, activity: Activity = IDLE) -> bool:
        """Press the power button, and stop the guest when it still runs after ``grace_seconds``.

        True when it went by itself. A cancel ends the wait, by an exception, and leaves the guest as it is.
        """
        deadline = time.monotonic() + grace_seconds
        pressed = float("-inf")
        while (state := self.state(uuid)) is not None and state.is_active:
            now = time.monotonic()
            if now >= deadline or state is DomainState.PAUSED:  # a halted guest cannot heed the button
                self._stop(uuid)
                return False
            if now - pressed >= _POWER_BUTTON_SECONDS:
                self._if_there(
                    "shut down", uuid, lambda domain: _unless_so(lambda: not domain.isActive(), domain.shutdown)
                )
                pressed = now
            activity.sleep(min(_SHUTDOWN_POLL_SECONDS, deadline - now))
        return True

    def state(self, uuid: str) -> DomainState | None:
        """None when there is no such domain."""
        status = self._status(uuid)
        return None if status is None else status.state

    def wait_running(self, uuid: str, activity: Activity = IDLE) -> None:
        """Return when the guest runs. Raises HypervisorError, with the end of QEMU's log, when it will not."""
        while (status := self._status(uuid)) is not None:
            if status.state is DomainState.RUNNING:
                return
            why = status.why_not_running()
            if why is not None:
                log = self._end_of_log(status.name)
                reason = f"{why}; QEMU's log ends: {log}" if log else why
                raise HypervisorError(
                    action="run", domain=status.name, reason=reason, code=libvirt.VIR_ERR_OPERATION_INVALID
                )
            activity.sleep(_POLL_SECONDS)
        raise HypervisorError(action="run", domain=uuid, reason="it is gone", code=libvirt.VIR_ERR_NO_DOMAIN)

    # -- filters ------------------------------------------------------------------------------------------------------

    def define_filter(self, xml: str) -> None:
        """Define or redefine an nwfilter. Raises NetworkError, also where the driver has none (see capabilities)."""
        name = parse(xml).get("name") or "without a name"
        try:
            self._session.call(lambda connection: connection.nwfilterDefineXML(xml))
        except libvirt.libvirtError as error:
            raise NetworkError(action="define filter", device=name, reason=message(error)) from error

    def undefine_filter(self, name: str) -> None:
        """Raises NetworkError while a running guest uses the filter."""
        gone = (libvirt.VIR_ERR_NO_NWFILTER, libvirt.VIR_ERR_NO_SUPPORT)
        try:
            self._session.call(lambda connection: connection.nwfilterLookupByName(name).undefine())
        except libvirt.libvirtError as error:
            if error.get_error_code() not in gone:
                raise NetworkError(action="undefine filter", device=name, reason=message(error)) from error

    def filters(self) -> list[str]:
        """Names of all nwfilters; none where the driver has no filters at all."""
        try:
            return sorted(self._session.call(lambda connection: connection.listNWFilters()))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return []
            raise NetworkError(action="list", device="filters", reason=message(error)) from error

    def call(self, function: Callable[[libvirt.virConnect], T]) -> T:
        """What the function gives for the connection; it may be called twice. libvirtError as libvirt raises it."""
        return self._session.call(function)

    def with_domain(self, action: str, uuid: str, function: Callable[[libvirt.virDomain], T]) -> T | None:
        """What the function gives for the domain; None when the domain is not there, or goes away meanwhile."""
        return self._if_there(action, uuid, function)

    def with_connection(self, action: str, domain: str, function: Callable[[libvirt.virConnect], T]) -> T:
        """What the function gives for the connection. It may be called twice. Raises HypervisorError."""
        return self._call(action, domain, function)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _call(self, action: str, domain: str, function: Callable[[libvirt.virConnect], T]) -> T:
        try:
            return self._session.call(function)
        except libvirt.libvirtError as error:
            raise domain_error(action, domain, error) from error

    def _if_there(self, action: str, uuid: str, function: Callable[[libvirt.virDomain], T]) -> T | None:
        """None when the domain is not there, or goes away meanwhile."""
        try:
            return self._session.call(lambda connection: function(connection.lookupByUUIDString(uuid)))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise domain_error(action, uuid, error) from error

    def _status(self, uuid: str) -> DomainStatus | None:
        return self._if_there("look at", uuid, status_of)

    def _record(self, domain: libvirt.virDomain) -> DomainRecord | None:
        uuid = str(domain.UUIDString())

        def record(found: libvirt.virDomain) -> DomainRecord:
            status = status_of(found)
            return DomainRecord(uuid, status.name, status.state, _operation_of(found))

        return self._if_there("look at", uuid, record)

    def _stop(self, uuid: str) -> None:
        """SIGTERM, so that QEMU flushes its disks; the plug only when that does not end it."""

        def stop(domain: libvirt.virDomain) -> None:
            gracefully = libvirt.VIR_DOMAIN_DESTROY_GRACEFUL
            _unless_so(lambda: not domain.isActive(), lambda: domain.destroyFlags(gracefully))

        try:
            self._if_there("stop", uuid, stop)
        except HypervisorError:
            self.destroy(uuid)

    def _end_of_log(self, name: str) -> str:
        """The last lines of QEMU's log where this process can read it, "" where not: the host may be another one."""
        root = embed_root_of(self.uri, self._embed_root)
        path = (_SYSTEM_LOGS if root is None else root / "log" / "qemu") / f"{name}.log"
        try:
            with path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        text = " | ".join(line.strip() for line in lines[-_LOG_LINES:])
        return "".join(character if character.isprintable() else " " for character in text)


def _read_capabilities(connection: libvirt.virConnect) -> HostCapabilities:
    return host_capabilities(
        connection.getCapabilities(),
        has_nwfilter=_has_nwfilter(connection),
        libvirt_version=connection.getLibVersion(),
        qemu_version=connection.getVersion(),
    )


def _has_nwfilter(connection: libvirt.virConnect) -> bool:
    try:
        connection.numOfNWFilters()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return False
    return True


def _unless_so(is_so: Callable[[], object], change: Callable[[], object]) -> None:
    """Make the change. That libvirt finds it invalid is fine when things are so already: somebody else was quicker."""
    try:
        change()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not is_so():
            raise


def _let_settle(domain: libvirt.virDomain) -> None:
    """Wait while the domain is starting: whoever started it was killed, and libvirt is about to stop it for that."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while status_of(domain).state is DomainState.STARTING and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _let_die(domain: libvirt.virDomain) -> None:
    """Wait for the end of a guest whose QEMU is about to end: whoever stopped it was killed before it was through.

    libvirt calls it running until it has noticed. Asking QEMU something tells the two apart.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while domain.isActive() and time.monotonic() < deadline:
        try:
            ask_qemu(domain)
        except libvirt.libvirtError:
            time.sleep(_POLL_SECONDS)
        else:
            return


def _resume(domain: libvirt.virDomain) -> None:
    if status_of(domain).state is not DomainState.RUNNING:
        _unless_so(lambda: status_of(domain).state is DomainState.RUNNING, domain.resume)


def _undefine(domain: libvirt.virDomain) -> None:
    if not domain.isPersistent():
        return
    for flags in _UNDEFINE_FLAGS:
        try:
            domain.undefineFlags(flags)
        except libvirt.libvirtError as error:
            if not flags or error.get_error_code() not in _UNKNOWN_FLAGS:
                raise
        else:
            return


def _operation_of(domain: libvirt.virDomain) -> str | None:
    try:
        xml = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    return parse(xml).get("operation")
