"""The single items: what each writes where in the guest. Writing one again leaves the same."""

from __future__ import annotations

import ctypes
import json
import secrets
import string
import time
from collections.abc import Callable

from virtflow.injection.filesystem import GuestFileError, GuestFilesystem
from virtflow.injection.plan import GuestItems

_ROOT = 0
_KEYS_HEADER = "# Written by virtflow when this instance was made."
_SALT = string.ascii_letters + string.digits + "./"
_DAY = 86400


def inject_key(guest: GuestFilesystem, items: GuestItems) -> None:
    """The keys at the end of root's authorized_keys, as far as they are not in it (sshd(8): its directory is 0700)."""
    guest.make_path("/root/.ssh")
    guest.set_ownership("/root/.ssh", _ROOT, _ROOT)
    guest.set_permissions("/root/.ssh", 0o700)
    path = "/root/.ssh/authorized_keys"
    try:
        before = guest.read(path)
    except FileNotFoundError:
        before = b""
    there = set(before.decode("utf-8", "replace").splitlines())
    missing = [key for key in items.keys if key not in there]
    if missing:
        start = "" if not before or before.endswith(b"\n") else "\n"
        guest.append(path, (start + "\n".join([_KEYS_HEADER, *missing]) + "\n").encode())
    guest.set_ownership(path, _ROOT, _ROOT)
    guest.set_permissions(path, 0o600)


def inject_network(guest: GuestFilesystem, items: GuestItems) -> None:
    assert items.network is not None
    guest.make_path("/etc/network")
    guest.replace("/etc/network/interfaces", items.network)
    guest.set_permissions("/etc/network/interfaces", 0o644)


def inject_metadata(guest: GuestFilesystem, items: GuestItems) -> None:
    guest.replace("/meta.js", json.dumps(dict(items.metadata), sort_keys=True).encode("ascii"))
    guest.set_permissions("/meta.js", 0o644)


def inject_admin_password(guest: GuestFilesystem, items: GuestItems) -> None:
    """Root's password in /etc/shadow (shadow(5)), as SHA-512: every libc since 2007 can check that."""
    assert items.admin_password is not None
    lines = guest.read("/etc/shadow").decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == "root" and len(fields) > 2:
            today = str(int(time.time()) // _DAY)
            lines[number] = ":".join(["root", hash_password(items.admin_password), today, *fields[3:]])
            break
    else:
        raise GuestFileError("/etc/shadow has no root")
    guest.replace("/etc/shadow", "\n".join(lines).encode("utf-8", "surrogateescape"))


def inject_files(guest: GuestFilesystem, items: GuestItems) -> None:
    for path, content in items.files.items():
        try:
            guest.make_path(path.rpartition("/")[0] or "/")
            guest.replace(path, content)
        except (GuestFileError, OSError) as error:
            raise GuestFileError(f"{path} {reason(error)}") from error


INJECTORS: dict[str, Callable[[GuestFilesystem, GuestItems], None]] = {
    "key": inject_key,
    "network": inject_network,
    "metadata": inject_metadata,
    "admin_password": inject_admin_password,
    "files": inject_files,
}
"""By the names of ``plan.ITEMS``."""


def reason(error: Exception) -> str:
    """Why, without what was written."""
    return str(getattr(error, "strerror", None) or error)


def hash_password(password: str) -> str:
    """As libcrypt makes it (crypt(5)); raises GuestFileError where this host has none, or for what it cannot hash.

    Not thread-safe: crypt(3) has one buffer. It is called in a process of its own.
    """
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.crypt.restype = ctypes.c_char_p
        salt = "".join(secrets.choice(_SALT) for _ in range(16))
        hashed: bytes | None = library.crypt(password.encode(), f"$6${salt}$".encode())
        if hashed is None or not hashed.startswith(b"$6$"):
            raise GuestFileError("the password cannot be hashed")
        return hashed.decode("ascii")
    raise GuestFileError("this host has no libcrypt")
