"""tgtd, the iSCSI server in user space: what it has, and what is to be changed.

Asked at its control socket, as tgtadm(8) does: to start a program for each question takes ten times as long, and
everybody on the host can read the arguments of one, passwords too. Source: tgt, usr/tgtadm.h and usr/mgmt.c, as they
are since 1.0.18 (2011).
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

from virtflow.errors import HostLacks, VolumeServerFailed

_SOCKET = "/var/run/tgtd/socket.{}"
_NEW, _DELETE, _SHOW, _BIND, _UNBIND = range(5)
_OPERATIONS = ("add", "delete", "show", "bind", "unbind")
_TARGETS, _LUNS, _ACCOUNTS = 1, 2, 7
"""What a request is about: tgt calls a LUN a device."""
_ABOUT = {_TARGETS: "targets", _LUNS: "LUNs", _ACCOUNTS: "accounts"}
_NO_TARGET, _NO_LUN = -1, 2**64 - 1
_REQUEST = struct.Struct("=II64sIiQQ6I")
"""``struct tgtadm_req``: mode, op, driver, length, target, session, LUN, connection, host, device type, direction,
pack, force. The parameters follow as text that ends in NUL."""
_RESPONSE = struct.Struct("=II")
"""An error, and the length of all of it; text follows."""
_ERRORS = (
    "",
    "unknown error",
    "out of memory",
    "no such driver",
    "no such target",
    "no such LUN",
    "no such session",
    "no such connection",
    "no such binding",
    "the target exists already",
    "the LUN exists already",
    "it is bound already",
    "the address is let in already",
    "the address is not let in",
    "the account exists already",
    "no such account",
    "too many accounts",
    "invalid request",
    "there is an outgoing account already",
    "the target is in use",
    "the LUN is in use",
    "the driver is in use",
    "unsupported operation",
    "unknown parameter",
    "removal is prevented",
)
"""``enum tgtadm_errno``."""
_SECONDS = 30.0

_TARGET = re.compile(r"^Target (\d+): (.*)$")
_LUN = re.compile(r"^ {8}LUN: (\d+)$")
_BACKING = re.compile(r"^ {12}Backing store path: (.*)$")
_SECTION = re.compile(r"^ {4}(\S.*):$")
_ENTRY = re.compile(r"^ {8}(\S.*)$")


@dataclass
class Target:
    """One target: its number, name, the backing of each LUN but the controller's, its accounts and who may see it."""

    id: int
    name: str
    luns: dict[int, str] = field(default_factory=dict)
    accounts: list[str] = field(default_factory=list)
    initiators: list[str] = field(default_factory=list)


class TgtDaemon:
    """The tgtd with this control port. Errors are VolumeServerFailed, and HostLacks when it does not run."""

    def __init__(self, control: int) -> None:
        self._control = control

    def targets(self) -> dict[str, Target]:
        """All its targets, by name."""
        return {each.name: each for each in read_targets(self._ask(_SHOW, _TARGETS))}

    def add_target(self, number: int, name: str) -> None:
        self._ask(_NEW, _TARGETS, target=number, parameters=f"targetname={name}")

    def delete_target(self, number: int) -> None:
        """Under whoever is logged in."""
        self._ask(_DELETE, _TARGETS, target=number, force=True)

    def add_lun(self, target: int, lun: int, backing: Path) -> None:
        self._ask(_NEW, _LUNS, target=target, lun=lun, parameters=f"path={backing}")

    def delete_lun(self, target: int, lun: int) -> None:
        """VolumeServerFailed while it does something."""
        self._ask(_DELETE, _LUNS, target=target, lun=lun)

    def let_in(self, target: int, addresses: str) -> None:
        """Initiators of these addresses may see the target; ``ALL`` are everybody's."""
        self._ask(_BIND, _TARGETS, target=target, parameters=f"initiator-address={addresses}")

    def shut_out(self, target: int, addresses: str) -> None:
        """The opposite; who is logged in stays so."""
        self._ask(_UNBIND, _TARGETS, target=target, parameters=f"initiator-address={addresses}")

    def accounts(self) -> list[str]:
        """All that it knows, of whatever target."""
        listed = self._ask(_SHOW, _ACCOUNTS).splitlines()[1:]
        return [line.strip() for line in listed if line.strip()]

    def add_account(self, user: str, password: str) -> None:
        self._ask(_NEW, _ACCOUNTS, parameters=f"user={user},password={password}")

    def delete_account(self, user: str) -> None:
        self._ask(_DELETE, _ACCOUNTS, parameters=f"user={user}")

    def bind_account(self, target: int, user: str) -> None:
        """Who logs in to the target has to be this user, or another one of its."""
        self._ask(_BIND, _ACCOUNTS, target=target, parameters=f"user={user}")

    # -- inside

    def _ask(
        self,
        op: int,
        about: int,
        *,
        target: int = _NO_TARGET,
        lun: int = _NO_LUN,
        force: bool = False,
        parameters: str = "",
    ) -> str:
        """What it answers."""
        text = parameters.encode() + b"\0" if parameters else b""
        length = _REQUEST.size + len(text)
        request = _REQUEST.pack(about, op, b"iscsi", length, target, 0, lun, 0, 0, 0, 0, 0, force)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            try:
                connection.connect(_SOCKET.format(self._control))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise self._absent() from error
            except OSError as error:
                raise _failed(op, about, error.strerror or str(error)) from error
            try:
                connection.sendall(request + text)
                refused, whole = _RESPONSE.unpack(_received(connection, _RESPONSE.size))
                answer = _received(connection, 0 if refused else whole - _RESPONSE.size)
            except TimeoutError as late:
                raise _failed(op, about, f"no answer in {_SECONDS:.0f} s") from late
            except OSError as gone:  # so it treats whoever is not of its own user and group, too
                raise _failed(op, about, "it has hung up") from gone
        if refused:
            raise _failed(op, about, _ERRORS[refused] if refused < len(_ERRORS) else f"error {refused}")
        return answer.rstrip(b"\0").decode("utf-8", "replace")

    def _absent(self) -> HostLacks:
        return HostLacks(
            action="serve volumes by iSCSI",
            missing=f"a running tgtd with control port {self._control}",
            remedy="start it (Debian: systemctl start tgt), or set [volumes] tgt_control",
        )


def _received(connection: socket.socket, size: int) -> bytes:
    """So many bytes, and no fewer."""
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionResetError
        found += more
    return found


def _failed(op: int, about: int, reason: str) -> VolumeServerFailed:
    return VolumeServerFailed(server="tgtd", action=f"{_OPERATIONS[op]} {_ABOUT[about]}", reason=reason)


def read_targets(listing: str) -> list[Target]:
    """What it says when all targets are to be shown."""
    found: list[Target] = []
    section, lun = "", 0
    for line in listing.splitlines():
        if match := _TARGET.match(line):
            found.append(Target(int(match[1]), match[2]))
        elif match := _SECTION.match(line):
            section = match[1]
        elif section == "LUN information":
            if match := _LUN.match(line):
                lun = int(match[1])
            elif (match := _BACKING.match(line)) and lun:
                found[-1].luns[lun] = match[1]
        elif (match := _ENTRY.match(line)) and section == "Account information":
            found[-1].accounts.append(match[1])
        elif match and section == "ACL information":
            found[-1].initiators.append(match[1])
    return found
