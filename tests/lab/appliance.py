"""A machine with a whole kernel: Debian's cloud kernel under QEMU, with this host's own files.

The kernel that tests run on may have neither device mapper nor an iSCSI initiator. What needs them runs in here: the
appliance shares the host's ``/`` (read-only, what is written stays in its memory) and a directory in which its command
stands and its results are left. Everything that is installed here is installed there, this checkout included.
"""

from __future__ import annotations

import fcntl
import gzip
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import alive, start, stop, wait_until
from virtflow.testing.guest import default_cache_dir
from virtflow.testing.guest_initrd import Entry, cpio, load_order
from virtflow.testing.guest_kernel import GuestKernel, installed_kernel, unpack_kernel

_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "lvm": "lvm2",
    "thin_check": "thin-provisioning-tools",
    "tgtd": "tgt",
    "iscsid": "open-iscsi",
    "lsscsi": "lsscsi",
}
_MODULES = ("virtio_pci", "virtio_blk", "virtio_rng", "virtiofs", "overlay")
_BOOT_SECONDS = 120
_DIRECTORY, _PROGRAM = 0o040755, 0o100755

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in /mods/*; do insmod $m || echo "insmod $m failed"; done
mount -t virtiofs -o ro host /lower || { echo NO-ROOT; poweroff -f; }
mount -t tmpfs -o size=60% tmpfs /rw; mkdir /rw/u /rw/w
mount -t overlay -o lowerdir=/lower,upperdir=/rw/u,workdir=/rw/w overlay /new
umount /proc /sys; mount --move /dev /new/dev; mount -t tmpfs tmpfs /new/run; cp /stage2 /new/run/
exec switch_root -c /dev/console /new /bin/bash /run/stage2
"""

_STAGE2 = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc; mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /run/lock /run/share; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd; ln -sfn /proc/self/fd/0 /dev/stdin; mount -t cgroup2 none /sys/fs/cgroup
echo /sbin/modprobe > /proc/sys/kernel/modprobe; echo appliance > /proc/sys/kernel/hostname; ip link set lo up
mkdir -p /lib/modules; [ -e /lib/modules/{version} ] || ln -s {modules} /lib/modules/{version}
mount -t virtiofs share /run/share
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block; udevadm settle
cd /run/share; bash ./cmd >./out 2>./err </dev/null; echo $? >./rc
sync; echo o > /proc/sysrq-trigger; sleep 5
"""


@dataclass(frozen=True)
class Result:
    """What the command has left."""

    status: int
    stdout: str
    stderr: str


def missing() -> str | None:
    """What the appliance needs and this host has not."""
    lacking = [package for program, package in _PROGRAMS.items() if not _found(program)]
    if not _VIRTIOFSD.exists():
        lacking.append("qemu-system-common")
    return f"packages {' '.join(lacking)}" if lacking else None


def run_inside(
    command: Sequence[str],
    share: Path,
    *,
    disks: Sequence[int] = (),
    memory_mib: int = 1024,
    seconds: float = 600,
    processors: int = 2,
) -> Result:
    """Run a command in a fresh appliance, as root. ``share`` is /run/share there, and its working directory.

    ``disks`` are the sizes in bytes of empty disks, /dev/vda and so on. RuntimeError when the appliance fails.
    """
    (share / "cmd").write_text(shlex.join(command) + "\n")
    (share / "rc").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="vfapp-") as scratch:
        directory = Path(scratch)
        kernel = _kernel()
        (directory / "initrd.gz").write_bytes(_initrd(kernel))
        with _shared(directory / "host.sock", Path("/"), "always"), _shared(directory / "share.sock", share, "auto"):
            machine = start(_machine(directory, kernel, disks, memory_mib, processors), directory / "qemu.log")
            try:
                ended = wait_until(lambda: not alive(machine), _BOOT_SECONDS + seconds, 0.1)
            finally:
                stop(machine)
        if not (share / "rc").exists():
            logs = "".join((directory / name).read_text(errors="replace")[-3000:] for name in ("console", "qemu.log"))
            raise RuntimeError(f"the appliance {'failed' if ended else 'did not end'}: {logs}")
    read = {name: (share / name).read_text(errors="replace") for name in ("rc", "out", "err")}
    return Result(int(read["rc"]), read["out"], read["err"])


def _machine(directory: Path, kernel: GuestKernel, disks: Sequence[int], memory_mib: int, processors: int) -> list[str]:
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-m", str(memory_mib)]
    words += ["-smp", str(processors)]
    words += ["-object", f"memory-backend-memfd,id=mem,size={memory_mib}M,share=on"]
    words += ["-machine", "q35,memory-backend=mem", "-nodefaults", "-no-reboot", "-display", "none"]
    words += ["-serial", f"file:{directory / 'console'}", "-device", "virtio-rng-pci"]
    words += ["-kernel", str(kernel.image), "-initrd", str(directory / "initrd.gz")]
    words += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"]
    for tag in ("host", "share"):
        words += ["-chardev", f"socket,id={tag},path={directory / tag}.sock"]
        words += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    for number, size in enumerate(disks):
        disk = directory / f"disk{number}.raw"
        with disk.open("wb") as file:
            file.truncate(size)
        words += ["-drive", f"file={disk},if=none,id=d{number},format=raw,cache=unsafe,discard=unmap"]
        words += ["-device", f"virtio-blk-pci,drive=d{number}"]
    return words


@contextmanager
def _shared(socket: Path, source: Path, cache: str) -> Iterator[None]:
    options = ["-o", f"source={source}", "-o", f"cache={cache}", "-o", "sandbox=chroot"]
    pid = start([str(_VIRTIOFSD), f"--socket-path={socket}", *options], socket.with_suffix(".log"))
    try:
        if not wait_until(lambda: socket.exists() or not alive(pid), 20) or not alive(pid):
            raise RuntimeError(f"virtiofsd does not start: {socket.with_suffix('.log').read_text()[-2000:]}")
        yield
    finally:
        stop(pid)


def _initrd(kernel: GuestKernel) -> bytes:
    directories = ("bin", "proc", "sys", "dev", "mods", "new", "lower", "rw")
    entries = [Entry(path, _DIRECTORY) for path in directories]
    entries.append(Entry("bin/busybox", _PROGRAM, Path(_found("busybox") or "").read_bytes()))
    entries.append(Entry("init", _PROGRAM, _INIT.encode()))
    stage2 = _STAGE2.format(version=kernel.version, modules=kernel.modules)
    entries.append(Entry("stage2", _PROGRAM, stage2.encode()))
    for number, module in enumerate(load_order((kernel.modules / "modules.dep").read_text(), _MODULES)):
        name = f"mods/{number:03}-{Path(module).name}"
        entries.append(Entry(name, _PROGRAM, (kernel.modules / module).read_bytes()))
    return gzip.compress(cpio(entries), compresslevel=1)


def _kernel() -> GuestKernel:
    """The system's, or one that is unpacked beside the test guests: modules and all."""
    cache = default_cache_dir().parent / "appliance"
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several appliances may be about to start
        found = installed_kernel() or installed_kernel(cache)
        if found is None:
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            found = unpack_kernel(cache, say=print)
    return found


def _found(program: str) -> str | None:
    return shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")


def main() -> None:
    """``python -m tests.lab.appliance COMMAND...``: run it in there, with two disks of 1 GiB."""
    import sys

    with tempfile.TemporaryDirectory(prefix="vfshare-") as share:
        result = run_inside(sys.argv[1:], Path(share), disks=(1 << 30, 1 << 30))
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    sys.exit(result.status)


if __name__ == "__main__":
    main()
