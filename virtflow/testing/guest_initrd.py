"""The initramfs of the test guest: a static busybox, the modules that it needs, and its ``/init``."""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from virtflow.errors import HostLacks
from virtflow.testing.guest_init import INIT, MODULES, POWER_BUTTON
from virtflow.testing.guest_kernel import GuestKernel

_DIRECTORY = 0o040755
_PROGRAM = 0o100755
_DIRECTORIES = ("bin", "proc", "sys", "dev", "mods", "cd", "disk", "run", "etc", "etc/acpi", "etc/acpi/PWRF")


@dataclass(frozen=True)
class Entry:
    """A file or a directory of an archive; ``mode`` has the file type's bits, as in stat(2)."""

    path: str
    mode: int
    content: bytes = b""


def build_initrd(kernel: GuestKernel, busybox: Path) -> bytes:
    """The initramfs, compressed. The same parts give the same bytes. Raises HostLacks when busybox is not static."""
    program = busybox.read_bytes()
    if b"/ld-linux" in program:
        raise HostLacks(
            action="build the test guest",
            missing=f"a static busybox ({busybox} needs shared libraries)",
            remedy="run: apt-get install busybox-static",
        )
    entries = [Entry(path, _DIRECTORY) for path in _DIRECTORIES]
    entries.append(Entry("bin/busybox", _PROGRAM, program))
    entries.append(Entry("init", _PROGRAM, INIT.encode()))
    entries.append(Entry("etc/acpi/PWRF/00000080", _PROGRAM, POWER_BUTTON.encode()))
    for number, module in enumerate(load_order((kernel.modules / "modules.dep").read_text(), MODULES)):
        name = f"mods/{number:03}-{Path(module).name.removesuffix('.xz')}"
        entries.append(Entry(name, _PROGRAM, _module(kernel.modules / module)))
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and what they need, in the order in which insmod has to see them.

    A line of modules.dep names what a module needs, the farthest last (depmod(8)). A module that is not listed is
    built into the kernel.
    """
    needs: dict[str, list[str]] = {}
    path_of: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        path_of[Path(path).name.split(".ko")[0].replace("-", "_")] = path
    order: dict[str, None] = {}
    for name in wanted:
        if name in path_of:
            order.update(dict.fromkeys([*reversed(needs[path_of[name]]), path_of[name]]))
    return list(order)


def _module(path: Path) -> bytes:
    # busybox insmod reads no xz, in which newer Debian kernels pack their modules.
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def cpio(entries: Iterable[Entry]) -> bytes:
    """An archive in the "newc" format that the kernel unpacks, owned by root, with no times in it.

    The format: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources.
    """
    archive = io.BytesIO()
    for inode, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if entry.mode == _DIRECTORY else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        archive.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        _pad(archive)
        archive.write(entry.content)
        _pad(archive)
    return archive.getvalue()


def _pad(archive: io.BytesIO) -> None:
    archive.write(b"\0" * (-archive.tell() % 4))
