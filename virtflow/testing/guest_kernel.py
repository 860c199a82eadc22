"""The kernel of the test guest: Debian's cloud kernel, from this system or unpacked from its package.

The package is downloaded and unpacked, never installed: a machine that only runs guests needs no kernel in /boot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import CommandFailed, HostLacks
from virtflow.processes import run

_META_PACKAGE = "linux-image-cloud-amd64"
_KERNEL_PACKAGE = re.compile(r"^Depends:.*\b(linux-image-(\d[\w.+-]*-cloud-amd64))\b", re.MULTILINE)


@dataclass(frozen=True)
class GuestKernel:
    """``modules`` is the kernel's module directory, with a modules.dep in it."""

    version: str
    image: Path
    modules: Path


def installed_kernel(root: Path = Path("/")) -> GuestKernel | None:
    """The newest cloud kernel below ``root`` that has its modules, or None."""
    found = []
    for image in (root / "boot").glob("vmlinuz-*-cloud-amd64"):
        version = image.name.removeprefix("vmlinuz-")
        modules = root / "lib/modules" / version
        if os.access(image, os.R_OK) and (modules / "modules.dep").is_file():
            found.append(GuestKernel(version=version, image=image, modules=modules))
    return max(found, key=lambda kernel: version_key(kernel.version), default=None)


def version_key(version: str) -> list[int]:
    """Order for kernel versions: 6.1.0-9 before 6.1.0-10."""
    return [int(digits) for digits in re.findall(r"\d+", version)]


def unpack_kernel(into: Path, *, say: Callable[[str], None], activity: Activity = IDLE) -> GuestKernel:
    """Download the newest cloud kernel's package and unpack it below ``into``, which must be empty.

    Raises HostLacks when apt has no such package, CommandFailed when apt or dpkg fail.
    """
    package = _newest_package(activity)
    say(f"downloading {package} (about 25 MB; it is unpacked for the test guest, not installed)")
    _download(package, into, activity)
    (archive,) = into.glob("*.deb")
    run(["dpkg-deb", "-x", archive, into], activity=activity)
    archive.unlink()
    version = package.removeprefix("linux-image-")
    run(["depmod", "-b", into, version], activity=activity)
    kernel = installed_kernel(into)
    if kernel is None:
        raise HostLacks(action="build the test guest", missing=f"the kernel in package {package}", remedy="report this")
    return kernel


def _newest_package(activity: Activity) -> str:
    package = _dependency_of_meta_package(activity)
    if package is None:
        _refresh_lists(activity)
        package = _dependency_of_meta_package(activity)
    if package is None:
        raise HostLacks(
            action="build the test guest",
            missing=f"a kernel in /boot, and package {_META_PACKAGE},",
            remedy="run: apt-get update",
        )
    return package


def _dependency_of_meta_package(activity: Activity) -> str | None:
    try:
        stanzas = run(["apt-cache", "show", "--no-all-versions", _META_PACKAGE], activity=activity)
    except CommandFailed:
        return None
    match = _KERNEL_PACKAGE.search(stanzas.decode())
    return match.group(1) if match else None


def _download(package: str, into: Path, activity: Activity) -> None:
    # The sandbox user could not write to this directory, and apt would complain.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    try:
        run(command, cwd=into, activity=activity)
    except CommandFailed:
        # Old lists name a version that the archive no longer has.
        if not _refresh_lists(activity):
            raise
        run(command, cwd=into, activity=activity)


def _refresh_lists(activity: Activity) -> bool:
    """Whether the package lists were brought up to date; only root may."""
    if os.geteuid() != 0:
        return False
    try:
        run(["apt-get", "-q", "update"], activity=activity)
    except CommandFailed:
        return False
    return True
