"""What ``virtflow doctor`` looks at. Each check is a function that returns a Finding; none changes the host."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.cli.finding import INFO, MISSING, OK, Finding, program
from virtflow.cli.volume_checks import lvm, volume_server
from virtflow.errors import VirtflowError

if TYPE_CHECKING:
    from virtflow.config import Config

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
EMBED_DRIVER = "libvirt_driver_qemu.so"
_LEAST_FREE = 2 * 2**30
"""Bytes: a small image, its base and a disk."""


def qemu(_config: Config) -> Finding:
    """The emulator for this machine's architecture."""
    machine = platform.machine()
    package = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}.get(machine, "qemu-system-misc")
    return program("qemu", (f"qemu-system-{machine}",), package)


def qemu_img(_config: Config) -> Finding:
    """Makes and converts disks."""
    return program("qemu-img", ("qemu-img",), "qemu-utils")


def transfer(config: Config) -> Finding:
    """Sends disks to other hosts; only `virtflow resize` and `virtflow migrate` need it."""
    if shutil.which("rsync") is None and config.engine.mode == "embedded":
        return Finding("transfer", OK, "rsync is not installed: disks stay on this host")
    return program("transfer", ("rsync",), "rsync")


def limits(_config: Config) -> Finding:
    """Programs are run under limits, and die with their parent."""
    for name in ("prlimit", "setpriv"):
        found = program("limits", (name,), "util-linux")
        if found.status != OK:
            break
    return found


def mkisofs(config: Config) -> Finding:
    """Only for vfat, or when a program is configured: config drives are built in process otherwise."""
    if config.config_drive.format == "vfat":
        mkfs = program("config drive", ("mkfs.vfat",), "dosfstools")
        return mkfs if mkfs.status == MISSING else program("config drive", ("mcopy",), "mtools")
    command = config.config_drive.mkisofs_cmd
    if command is None:
        return Finding("config drive", OK, "built in process")
    return program("config drive", (command.split()[0],), "genisoimage")


def injection(config: Config) -> Finding:
    """Only when it is switched on; an overlay is shown to it as a file by QEMU's storage daemon."""
    if config.injection.partition == -2:
        return Finding("injection", OK, "switched off")
    if config.injection.method == "libguestfs":
        known = importlib.util.find_spec("guestfs") is not None
        fix = "" if known else "apt-get install python3-guestfs"
        return Finding("injection", OK if known else MISSING, "libguestfs", fix)
    daemon = program("injection", ("qemu-storage-daemon",), "qemu-system-common")
    if daemon.status == OK and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return Finding("injection", MISSING, "/dev/fuse cannot be opened", "modprobe fuse")
    return daemon


def kvm(config: Config) -> Finding:
    """Not needed: without it guests are emulated, which is slow."""
    device = Path("/dev/kvm")
    if os.access(device, os.R_OK | os.W_OK):
        return Finding("kvm", OK, str(device))
    state = "cannot be opened" if device.exists() else "is not there"
    status = MISSING if config.libvirt.virt_type == "kvm" else INFO
    fix = "modprobe kvm_intel || modprobe kvm_amd" if status == MISSING else ""
    return Finding("kvm", status, f"{device} {state}: guests are emulated", fix)


def tun(_config: Config) -> Finding:
    """Guests' network devices are taps."""
    device = Path("/dev/net/tun")
    if not device.exists():
        return Finding("tun", MISSING, f"{device} is not there", "modprobe tun")
    if os.geteuid() != 0:
        return Finding("tun", INFO, "only root can make taps: run virtflow as root for guests with a network")
    return Finding("tun", OK, str(device))


def libvirt_schemas(_config: Config) -> Finding:
    """Domain XML is checked against libvirt's schema before libvirt sees it."""
    if not SCHEMA.is_file():
        return Finding("libvirt schemas", MISSING, f"{SCHEMA} is not there", "apt-get install libvirt0")
    return Finding("libvirt schemas", OK, str(SCHEMA.parent))


def libvirt(config: Config) -> Finding:
    """Whether libvirt answers. With qemu:///embed, libvirt is a library and its QEMU driver a plug-in."""
    if importlib.util.find_spec("libvirt") is None:
        fix = "apt-get install libvirt-dev pkg-config gcc python3-dev && pip install libvirt-python"
        return Finding("libvirt", MISSING, "the Python binding is not installed", fix)
    from virtflow.hypervisor.hypervisor import Hypervisor

    embed = config.libvirt.embed_root
    fix = "apt-get install libvirt-daemon-driver-qemu" if embed else "systemctl start libvirtd"
    hypervisor = Hypervisor(config.libvirt.uri, embed, wait_seconds=0)
    try:
        found = hypervisor.capabilities()
    except VirtflowError as error:
        if embed and "pid file" in str(error):
            return Finding("libvirt", INFO, f"{embed} is in use by another virtflow process")
        return Finding("libvirt", MISSING, str(error), fix)
    finally:
        hypervisor.close()
    kinds = ", ".join(found.virt_types) or "no QEMU"
    return Finding("libvirt", OK, f"{found.libvirt_version}, QEMU {found.qemu_version}, {kinds}")


def python_packages(_config: Config) -> Finding:
    """Every package that virtflow declares."""
    try:
        declared = requires("virtflow") or ()
        wanted = [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in declared if "extra ==" not in line]
    except PackageNotFoundError:
        return Finding("python packages", MISSING, "virtflow itself is not installed", "pip install virtflow")
    missing = [name for name in wanted if not _installed(name)]
    if missing:
        return Finding("python packages", MISSING, ", ".join(missing), f"pip install {' '.join(missing)}")
    return Finding("python packages", OK, f"{len(wanted)} present")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def database(config: Config) -> Finding:
    """Reachable, and at the schema of this virtflow."""
    from virtflow.persistence import schema
    from virtflow.persistence.database import Database

    try:
        opened = Database(config.database.url, busy_timeout=config.database.busy_timeout)
        found = schema.current(opened)
        opened.close()
    except VirtflowError as error:
        return Finding("database", MISSING, str(error))
    if found is None and opened.dialect == "sqlite":
        return Finding("database", OK, f"{opened.path} is made by the first command that needs it")
    if found != schema.head():
        detail = f"{opened.url} is at schema {found}, needed is {schema.head()}"
        return Finding("database", MISSING, detail, "virtflow db upgrade")
    return Finding("database", OK, f"{opened.url} at schema {found}")


def clock(config: Config) -> Finding:
    """Whether this host and the database's server agree what time it is."""
    from virtflow.persistence.database import Database

    try:
        opened = Database(config.database.url, busy_timeout=config.database.busy_timeout)
        if opened.dialect == "sqlite":
            return Finding("clock", OK, "nobody else's counts")
        with opened.connect():
            pass  # a connection compares the clocks
        opened.close()
    except VirtflowError:
        return Finding("clock", INFO, "the database cannot be asked what time it is")
    if not opened.clock.ahead:
        return Finding("clock", OK, "that of the database")
    fix = "systemctl restart chrony || systemctl restart systemd-timesyncd"
    return Finding("clock", INFO, opened.clock.in_words(), fix)


def free_space(config: Config) -> Finding:
    """Where the disks will be."""
    path = config.instances.path
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    detail = f"{free / 2**30:.1f} GiB free in {path}"
    if free < _LEAST_FREE:
        return Finding("free space", MISSING, detail, "free some space, or set [instances] path")
    return Finding("free space", OK, detail)


def writable(config: Config) -> Finding:
    """The state directory, or the nearest of its parents that exists."""
    path = config.state_dir
    while not path.exists():
        path = path.parent
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(
            "state directory", MISSING, f"{path} is not writable", "virtflow --state-dir DIR, or run as root"
        )
    return Finding("state directory", OK, str(config.state_dir))


CHECKS: tuple[Callable[[Config], Finding], ...] = (
    *(python_packages, qemu, qemu_img, libvirt, libvirt_schemas, kvm, tun, limits, mkisofs, injection, transfer),
    *(volume_server, lvm, writable, free_space, database, clock),
)
