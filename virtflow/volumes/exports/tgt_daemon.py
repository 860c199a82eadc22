"""tgtd, the iSCSI server in user space: what it has, and what is to be changed, through tgtadm(8)."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, HostLacks
from virtflow.processes import run

_SOCKET = "/var/run/tgtd/socket.{}"
_NO_DAEMON = 107
"""ENOTCONN: what tgtadm ends with when nobody listens at the control socket."""
_MODE_ACCOUNT, _OP_NEW = 7, 0
_REQUEST = struct.Struct("=II64sIiQQ6I")
"""``struct tgtadm_req`` (tgt, usr/tgtadm.h): mode, op, driver, length, target, session, LUN, connection, host, device
type, direction, pack, force. The parameters follow as text that ends in NUL."""
_RESPONSE = struct.Struct("=II")
_SECONDS = 10.0

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
    """The tgtd with this control port. Errors are CommandFailed, and HostLacks when it does not run."""

    def __init__(self, control: int) -> None:
        self._control = control

    def targets(self) -> dict[str, Target]:
        """All its targets, by name."""
        return {each.name: each for each in read_targets(self._tgtadm({"op": "show", "mode": "target"}))}

    def accounts(self) -> list[str]:
        listed = self._tgtadm({"op": "show", "mode": "account"}).splitlines()[1:]
        return [line.strip() for line in listed if line.strip()]

    def change(self, op: str, mode: str, activity: Activity = IDLE, **options: object) -> None:
        """``options`` are tgtadm's long ones; None for one that has no value."""
        self._tgtadm({"op": op, "mode": mode, **options}, activity)

    def add_account(self, user: str, password: str) -> None:
        """Not by tgtadm: everybody on this host can read the arguments of a program."""
        parameters = f"user={user},password={password}".encode() + b"\0"
        length = _REQUEST.size + len(parameters)
        request = _REQUEST.pack(_MODE_ACCOUNT, _OP_NEW, b"iscsi", length, -1, 0, 2**64 - 1, 0, 0, 0, 0, 0, 0)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_SECONDS)
                connection.connect(_SOCKET.format(self._control))
                connection.sendall(request + parameters)
                answer = connection.recv(_RESPONSE.size, socket.MSG_WAITALL)
        except OSError as error:
            raise self._absent() from error
        status = _RESPONSE.unpack(answer)[0] if len(answer) == _RESPONSE.size else -1
        if status != 0:
            raise CommandFailed(program="tgtd", status=status, stderr=f"it refuses account {user}")

    def _tgtadm(self, options: Mapping[str, object], activity: Activity = IDLE) -> str:
        words = ["tgtadm", "-C", str(self._control), "--lld", "iscsi"]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", *([] if value is None else [str(value)])]
        try:
            return run(words, activity=activity).decode("utf-8", "replace")
        except CommandFailed as error:
            if error.status == _NO_DAEMON:
                raise self._absent() from error
            raise

    def _absent(self) -> HostLacks:
        return HostLacks(
            action="serve volumes by iSCSI",
            missing=f"a running tgtd with control port {self._control}",
            remedy="start it (Debian: systemctl start tgt), or set [volumes] tgt_control",
        )


def read_targets(listing: str) -> list[Target]:
    """What ``tgtadm --op show --mode target`` prints."""
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
