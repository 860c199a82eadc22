"""The test guest: a real operating system of two megabytes that tells on its console what it was given.

Used by ``virtflow demo``, by our tests, and by yours::

    guest = build_guest()
    catalog.add(guest.disk_qcow2, "tiny", "qcow2")

It boots from its disk image (BIOS, on ``pc`` and ``q35``) or directly from ``kernel`` and ``initrd``. What it prints is
written down in ``virtflow.testing.guest_init``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.errors import HostLacks
from virtflow.testing import guest_disk, guest_init, guest_initrd, guest_kernel
from virtflow.testing.guest_disk import MIB, build_disk
from virtflow.testing.guest_initrd import build_initrd
from virtflow.testing.guest_kernel import GuestKernel, installed_kernel, unpack_kernel, version_key

_BOOT_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_PACKAGE_OF = {
    "busybox": "busybox-static",
    "depmod": "kmod",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "qemu-img": "qemu-utils",
    "syslinux": "syslinux",
}
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class GuestImage:
    """Where the parts of a built guest are. ``virtual_size`` of the disk is in bytes."""

    kernel_version: str
    kernel: Path
    initrd: Path
    disk_qcow2: Path
    virtual_size: int


def default_cache_dir() -> Path:
    """Where built guests are kept: ``$XDG_CACHE_HOME/virtflow/guest``, by default below ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "virtflow", "guest")


def build_guest(
    cache_dir: Path | None = None,
    *,
    disk_mib: int = 32,
    padding_mib: int = 0,
    say: Callable[[str], None] = lambda _: None,
    activity: Activity = IDLE,
) -> GuestImage:
    """Build the guest, or find it as it was built before; a second builder waits for the first.

    ``disk_mib`` is the part of the disk that boots (at least 24); ``padding_mib`` of noise are added behind it, for
    images of a certain weight. ``say`` is told of what takes long. Raises HostLacks when this host has not what it
    takes, CommandFailed when a program fails.
    """
    cache = (cache_dir or default_cache_dir()).absolute()
    with _locked(cache):
        parts = _kernel_and_initrd(cache, say, activity)
        disk = parts / f"guest-{disk_mib}-{padding_mib}.qcow2"
        if not disk.exists():
            _require_programs()
            say(f"building the test guest's disk ({disk_mib + padding_mib} MiB)")
            staged = _staging(cache) / disk.name
            build_disk(
                staged,
                kernel=parts / "vmlinuz",
                initrd=parts / "initrd.gz",
                boot_code=_BOOT_CODE,
                size=disk_mib * MIB,
                padding=padding_mib * MIB,
                activity=activity,
            )
            _publish(staged, disk)
    return GuestImage(
        kernel_version=parts.name.partition("_")[0],
        kernel=parts / "vmlinuz",
        initrd=parts / "initrd.gz",
        disk_qcow2=disk,
        virtual_size=(disk_mib + padding_mib) * MIB,
    )


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            shutil.rmtree(cache / "staging", ignore_errors=True)


def _staging(cache: Path) -> Path:
    """An empty directory for what is being built; whoever holds the lock owns it, and what a killed builder left."""
    staging = cache / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    return staging


def _kernel_and_initrd(cache: Path, say: Callable[[str], None], activity: Activity) -> Path:
    """The directory ``<kernel version>_<builder's fingerprint>`` with vmlinuz and initrd.gz in it."""
    builder = _fingerprint()
    kernel = installed_kernel()
    if kernel is not None:
        published = cache / f"{kernel.version}_{builder}"
        if not published.is_dir():
            _build_parts(kernel, published)
        return published
    built = sorted(cache.glob(f"*_{builder}"), key=lambda path: version_key(path.name.partition("_")[0]))
    if built:
        return built[-1]
    _require_programs()
    with tempfile.TemporaryDirectory() as directory:
        kernel = unpack_kernel(Path(directory), say=say, activity=activity)
        published = cache / f"{kernel.version}_{builder}"
        _build_parts(kernel, published)
    return published


def _build_parts(kernel: GuestKernel, published: Path) -> None:
    _require_programs()
    busybox = shutil.which("busybox", path=_SEARCH_PATH)
    assert busybox is not None
    staged = _staging(published.parent)
    shutil.copyfile(kernel.image, staged / "vmlinuz")
    (staged / "initrd.gz").write_bytes(build_initrd(kernel, Path(busybox)))
    _publish(staged, published)


def _publish(staged: Path, final: Path) -> None:
    for path in staged.iterdir() if staged.is_dir() else [staged]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    staged.replace(final)


def _fingerprint() -> str:
    """Changes with the sources of the builder, so that a guest of an older builder is not taken for today's."""
    digest = hashlib.sha256()
    for module in (guest_disk, guest_init, guest_initrd, guest_kernel):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:10]


def _require_programs() -> None:
    lacking = {
        program: package for program, package in _PACKAGE_OF.items() if not shutil.which(program, path=_SEARCH_PATH)
    }
    if not _BOOT_CODE.exists():
        lacking[str(_BOOT_CODE)] = "syslinux-common"
    if lacking:
        raise HostLacks(
            action="build the test guest",
            missing=", ".join(lacking),
            remedy=f"run: apt-get install --no-install-recommends {' '.join(sorted(lacking.values()))}",
        )


def main() -> None:
    """Build the guest and tell where it is."""
    guest = build_guest(say=lambda text: print(text, file=sys.stderr))
    print(f"kernel {guest.kernel}\ninitrd {guest.initrd}\ndisk   {guest.disk_qcow2}")


if __name__ == "__main__":
    main()
