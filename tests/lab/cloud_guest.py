"""A real Debian with cloud-init from Debian's archive, as a disk image that boots: made once, kept in a cache.

``build_cloud_guest()`` takes two to three minutes the first time (mmdebstrap downloads some 90 MB), nothing afterwards.
The disk has an MBR, a FAT partition with SYSLINUX, kernel and initramfs, and the root as ext4 in partition 2. No daemon
of the guest's packages ever runs on this host.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from virtflow.errors import HostLacks
from virtflow.files.lock import hold
from virtflow.testing.guest_initrd import Entry, cpio, load_order
from virtflow.testing.guest_kernel import GuestKernel, installed_kernel, unpack_kernel

_PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "qemu-img": "qemu-utils",
}
_BOOT_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_SUITE = "bookworm"
# cloud-init sets the default route with route(8) of net-tools, and without it says nothing.
_PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "cloud-init", "cloud-guest-utils", "iproute2", "openssh-server", "kmod"),
    *("netbase", "net-tools", "ifupdown", "isc-dhcp-client", "e2fsprogs", "sudo"),
)
_DISK_MIB = 640
_BOOT_START, _BOOT_SECTORS = 2048, 65536
_ROOT_START = _BOOT_START + _BOOT_SECTORS
_SECTOR = 512

_INITRD_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
_ROOT_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio_rng", "virtio_balloon", "virtio_console"),
    *("sd_mod", "sr_mod", "ata_piix", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8"),
)

_INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /mods/*; do insmod "$module" 2>/dev/null; done
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    for disk in /dev/vda2 /dev/sda2; do
        [ -b $disk ] && mount -t ext4 $disk /new && break 2
    done
    sleep 0.2
done
mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new /sbin/init
"""

_SYSLINUX = b"""\
DEFAULT debian
PROMPT 0
SERIAL 0 115200
LABEL debian
 KERNEL /vmlinuz
 INITRD /initrd.gz
 APPEND console=ttyS0 quiet mitigations=off
"""

# The modules that a test looks at, and no more: key generation of every kind alone takes an emulated guest 15 s.
_CLOUD_CONFIG = """\
datasource_list: [ ConfigDrive, None ]
ssh_genkeytypes: [ ed25519 ]
no_ssh_fingerprints: true
cloud_init_modules: [ seed_random, write-files, set_hostname, update_hostname, users-groups, ssh ]
cloud_config_modules: [ set-passwords, runcmd ]
cloud_final_modules: [ scripts-user, final-message ]
"""

_UNWANTED = ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer", "dpkg-db-backup.timer")


class CloudGuestMissing(Exception):
    """The guest cannot be built here; the text is a reason to skip."""


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/virtflow/cloud-guest``, by default below ``~/.cache``: next to the other built guests."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "virtflow", "cloud-guest")


def build_cloud_guest(cache: Path | None = None) -> Path:
    """The qcow2 image, built in ``cache`` unless it is there. Raises CloudGuestMissing."""
    cache = cache or default_cache()
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    image = cache / f"debian-{digest}.qcow2"
    cache.mkdir(parents=True, exist_ok=True)
    with hold(cache / "lock"):
        if not image.exists():
            _require()
            # Not in memory, as /tmp may be: the unpacked system takes 350 MB.
            with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as directory:
                try:
                    _build(Path(directory), image)
                except HostLacks as lacks:
                    raise CloudGuestMissing(str(lacks)) from lacks
    return image


def _require() -> None:
    if os.geteuid() != 0:
        raise CloudGuestMissing("building a Debian guest needs root")
    lacking = sorted(package for program, package in _PROGRAMS.items() if shutil.which(program) is None)
    if not _BOOT_CODE.exists():
        lacking.append("syslinux-common")
    if lacking:
        raise CloudGuestMissing(f"missing: apt install {' '.join(lacking)}")


def _build(work: Path, image: Path) -> None:
    root = work / "root"
    _run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}"),
            *("--dpkgopt=path-exclude=/usr/share/{doc,man,locale,i18n}/*", _SUITE, str(root)),
        ]
    )
    kernel = installed_kernel() or unpack_kernel(_made(work / "kernel"), say=print)
    _add_modules(kernel, root)
    _configure(root)
    (work / "initrd.gz").write_bytes(_initrd(kernel))
    (work / "syslinux.cfg").write_bytes(_SYSLINUX)
    disk = work / "disk.raw"
    _partition(disk)
    _fill_boot_partition(disk, kernel.image, work)
    _fill_root_partition(disk, root)
    _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", str(disk), str(work / "disk.qcow2")])
    (work / "disk.qcow2").replace(image)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _add_modules(kernel: GuestKernel, root: Path) -> None:
    target = root / "lib/modules" / kernel.version
    for module in load_order((kernel.modules / "modules.dep").read_text(), _ROOT_MODULES):
        (target / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel.modules / module, target / module)
    for name in ("modules.builtin", "modules.order"):
        shutil.copyfile(kernel.modules / name, target / name)
    _run(["depmod", "-b", str(root), kernel.version])


def _configure(root: Path) -> None:
    (root / "etc/cloud/cloud.cfg.d/99-lab.cfg").write_text(_CLOUD_CONFIG)
    (root / "etc/fstab").write_text("LABEL=root / ext4 errors=remount-ro 0 1\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("unnamed\n")
    for unit in _UNWANTED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


def _initrd(kernel: GuestKernel) -> bytes:
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    entries = [Entry(path, 0o040755) for path in ("bin", "proc", "sys", "dev", "mods", "new")]
    entries += [Entry("bin/busybox", 0o100755, busybox.read_bytes()), Entry("init", 0o100755, _INIT.encode())]
    for number, module in enumerate(load_order((kernel.modules / "modules.dep").read_text(), _INITRD_MODULES)):
        name = f"mods/{number:03}-{Path(module).name}"
        entries.append(Entry(name, 0o100644, (kernel.modules / module).read_bytes()))
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def _partition(disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(_DISK_MIB << 20)
    table = f"label: dos\nstart={_BOOT_START},size={_BOOT_SECTORS},type=e,bootable\nstart={_ROOT_START},type=83\n"
    _run(["sfdisk", "-q", str(disk)], table.encode())
    with disk.open("r+b") as file:
        file.write(_BOOT_CODE.read_bytes()[:440])


def _fill_boot_partition(disk: Path, kernel: Path, work: Path) -> None:
    offset = _BOOT_START * _SECTOR
    volume = f"{disk}@@{offset}"
    _run(["mkfs.vfat", "-F", "16", "--offset", str(_BOOT_START), str(disk), str(_BOOT_SECTORS * _SECTOR // 1024)])
    for source, name in (
        (kernel, "vmlinuz"),
        (work / "initrd.gz", "initrd.gz"),
        (work / "syslinux.cfg", "syslinux.cfg"),
    ):
        _run(["mcopy", "-i", volume, str(source), f"::/{name}"])
    _run(["syslinux", "-t", str(offset), "-i", str(disk)])


def _fill_root_partition(disk: Path, root: Path) -> None:
    offset = _ROOT_START * _SECTOR
    blocks = ((_DISK_MIB << 20) - offset) // 1024
    _run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(root)),
            *("-E", f"offset={offset}", str(disk), f"{blocks}k"),
        ]
    )


def _run(command: Sequence[str], stdin: bytes = b"") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CloudGuestMissing(f"{command[0]} failed: {' '.join(why)[:200]}")
