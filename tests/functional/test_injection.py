"""Injection with the real programs: what arrives in the guest, what a hostile image can do, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import InjectionError, OperationCancelled
from virtflow.injection import leftovers
from virtflow.injection.injector import Injector
from virtflow.injection.plan import GuestItems

pytestmark = pytest.mark.must_run

MIB = 1 << 20
START = 11 * MIB
"""Where the root partition begins on every disk with a table."""
KEY = "ssh-ed25519 AAAAC3 me@home"
ITEMS = GuestItems(
    keys=(KEY,),
    network=b"auto lo\n",
    metadata={"role": "web"},
    admin_password="canary-password",
    files={"/opt/some where/file": b"canary-content\0\xff", "/etc/motd": b"hello\n"},
)


@pytest.fixture(autouse=True)
def _needed() -> None:
    programs = {"qemu-storage-daemon": "qemu-system-common", "mke2fs": "e2fsprogs", "sfdisk": "fdisk"}
    lacking = [package for program, package in programs.items() if not shutil.which(program)]
    if lacking:
        pytest.skip(f"missing: apt install {' '.join(lacking)}")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root, /dev/fuse and loop devices")


def run(*argv: str | Path, **options: object) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True, **options).stdout  # type: ignore[call-overload, no-any-return]


def plant(tree: Path) -> Path:
    """A small Debian's skeleton."""
    for name in ("etc/network", "root", "opt", "dev"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/shadow").write_text("daemon:*:1:0:99999:7:::\nroot:*:1:0:99999:7:::\n")
    (tree / "etc/shadow").chmod(0o640)
    (tree / "etc/motd").write_text("a longer text of the image\n")
    return tree


def make_raw(path: Path, tree: Path, *, table: bool = True) -> Path:
    """A raw disk of 64 MiB with the tree in an ext4 file system, behind a GPT and a FAT-less ESP, or alone."""
    start = START if table else 0
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    if table:
        run("sfdisk", "-q", path, input=b"label: gpt\nstart=2048,size=20480,type=uefi\nstart=22528\n")
    blocks = (64 * MIB - start) // 1024 - 1024
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", f"offset={start},root_owner=0:0", path, f"{blocks}k")
    return path


def make_overlay(path: Path, base: Path) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path, "96M")
    return path


@dataclass
class Inside:
    """The guest's file system as debugfs shows it, which has its own idea of ext4."""

    disk: Path
    disk_format: str
    start: int = START

    def __post_init__(self) -> None:
        if self.disk_format != "raw":
            raw = self.disk.with_name("inside.raw")
            run("qemu-img", "convert", "-f", self.disk_format, "-O", "raw", self.disk, raw)
            self.disk = raw

    def ask(self, request: str) -> bytes:
        return run("debugfs", "-R", request, f"{self.disk}?offset={self.start}")

    def read(self, path: str) -> bytes:
        return self.ask(f'cat "{path}"')

    def mode(self, path: str) -> str:
        found = re.search(rb"Mode: +(\d+).*?User: +(\d+) +Group: +(\d+)", self.ask(f'stat "{path}"'), re.DOTALL)
        assert found is not None, path
        return " ".join(part.decode() for part in found.groups())

    def check(self) -> None:
        """Raises when e2fsck finds anything."""
        run("e2fsck", "-f", "-n", f"{self.disk}?offset={self.start}")


def nothing_left(folder: Path) -> bool:
    """No mount, loop device, process or file of an injection into a disk in this folder."""
    needle = f"{folder}/"
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if needle in line]
    loops = [line for line in run("losetup", "-a").decode().splitlines() if needle in line]
    processes = [pid for each in leftovers.find(folder.parent) for pid in leftovers.processes(each)]
    return not mounts and not loops and not processes


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The instance's directory; nothing may be left of what works in it."""
    path = tmp_path / "instance"
    path.mkdir()
    yield path
    assert nothing_left(path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_raw(tmp_path / "base", plant(tmp_path / "tree"))


@pytest.mark.parametrize("method", ["fuse", "debugfs"])
@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
@pytest.mark.parametrize("partition", [-1, 2])
def test_everything_arrives_and_the_disk_stays_sound(
    folder: Path, base: Path, method: str, disk_format: str, partition: int
) -> None:
    disk = folder / "disk"
    make_overlay(disk, base) if disk_format == "qcow2" else shutil.copy(base, disk)
    before = hashlib.sha256(base.read_bytes()).digest()
    done = Injector(method).inject(disk, disk_format, partition, ITEMS, "op1")
    assert done.injected == ("key", "network", "metadata", "admin_password", "files")
    assert (done.failed, done.method) == ({}, method)
    assert os.listdir(folder) == ["disk"]
    guest = Inside(disk, disk_format)
    assert guest.read("/root/.ssh/authorized_keys").decode().splitlines()[-1] == KEY
    assert guest.mode("/root/.ssh/authorized_keys") == "0600 0 0"
    assert guest.mode("/root/.ssh") == "0700 0 0"
    assert guest.read("/etc/network/interfaces") == b"auto lo\n"
    assert guest.mode("/etc/network/interfaces") == "0644 0 0"
    assert json.loads(guest.read("/meta.js")) == {"role": "web"}
    assert guest.read("/opt/some where/file") == b"canary-content\0\xff"
    assert guest.mode("/opt/some where/file") == "0600 0 0"
    assert guest.read("/etc/motd") == b"hello\n"
    assert guest.mode("/etc/motd").startswith("0644")
    assert re.search(rb"^daemon:\*:1:.*\nroot:\$6\$\S+\n$", guest.read("/etc/shadow"))
    assert guest.mode("/etc/shadow").startswith("0640")
    guest.check()
    if disk_format == "qcow2":
        run("qemu-img", "check", "-q", "-f", "qcow2", disk)
    assert hashlib.sha256(base.read_bytes()).digest() == before


@pytest.mark.parametrize("method", ["fuse", "debugfs"])
def test_a_file_system_without_a_partition_table_is_partition_0(folder: Path, tmp_path: Path, method: str) -> None:
    disk = make_raw(folder / "disk", plant(tmp_path / "tree"), table=False)
    Injector(method).inject(disk, "raw", 0, ITEMS, "op1")
    assert Inside(disk, "raw", 0).read("/etc/motd") == b"hello\n"


def test_injecting_twice_leaves_the_same_but_for_the_hash(folder: Path, base: Path) -> None:
    disk = make_overlay(folder / "disk", base)
    for _ in range(2):
        Injector().inject(disk, "qcow2", -1, ITEMS, "op1")
    assert Inside(disk, "qcow2").read("/root/.ssh/authorized_keys").decode().count(KEY) == 1


def test_the_fast_path_takes_less_than_half_a_second(folder: Path, base: Path) -> None:
    disk = make_overlay(folder / "disk", base)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        Injector("fuse").inject(disk, "qcow2", -1, ITEMS, "op1")
        taken.append(time.perf_counter() - started)
    print("injection took", *(f"{each:.3f} s" for each in taken))
    assert min(taken) < 0.5


# -- an image whose maker is an enemy ----------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path, folder: Path) -> tuple[Path, Path]:
    """A disk whose /etc is the host's, and whose other places are traps; and the directory of the host it leads to."""
    host = tmp_path / "host"
    (host / "network").mkdir(parents=True)
    (host / "shadow").write_text("root:host:1::::::\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "etc").symlink_to(host)
    (tree / "root").symlink_to("../../../../../../../" + str(host)[1:])
    os.mkfifo(tree / "meta.js")
    (tree / "opt").mkdir()
    (tree / "opt/up").symlink_to("../../../../.." + str(host))
    os.mknod(tree / "opt/device", 0o600 | 0o020000, os.makedev(1, 3))
    (tree / "opt/proc").symlink_to("/proc/self/root/etc")
    (tree / "opt/self").symlink_to("self")
    return make_raw(folder / "disk", tree, table=False), host


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["fuse", "debugfs"])
def test_no_link_pipe_or_device_of_an_image_leads_out_of_it(hostile: tuple[Path, Path], method: str) -> None:
    disk, host = hostile
    done = Injector(method).inject(disk, "raw", 0, ITEMS, "op1", mandatory=frozenset())
    assert done.injected == ()
    assert done.failed.keys() == {"key", "network", "metadata", "admin_password", "files"}
    assert done.failed["metadata"] == "is not a regular file"
    assert sorted(str(path.relative_to(host)) for path in host.rglob("*")) == ["network", "shadow"]
    assert (host / "shadow").read_text() == "root:host:1::::::\n"
    assert "canary" not in str(done)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["fuse", "debugfs"])
@pytest.mark.parametrize(
    "path", ["/opt/up/passwd", "/opt/device", "/opt/proc/passwd", "/opt/self", "/etc/x", "/meta.js"]
)
def test_a_mandatory_file_that_would_lead_out_of_the_image_is_an_error(
    hostile: tuple[Path, Path], method: str, path: str
) -> None:
    disk, host = hostile
    with pytest.raises(InjectionError, match=re.escape(f"files: {path} ")) as caught:
        Injector(method).inject(disk, "raw", 0, GuestItems(files={path: b"canary"}), "op1")
    assert "canary" not in str(caught.value)
    assert not (host / "x").exists()
    assert not (host / "passwd").exists()


def test_a_disk_without_a_file_system_fails_only_when_something_is_mandatory(folder: Path) -> None:
    disk = folder / "disk"
    disk.write_bytes(bytes(MIB))
    done = Injector().inject(disk, "raw", -1, GuestItems(keys=(KEY,)), "op1")
    assert done.injected == ()
    assert "no ext2, ext3 or ext4" in done.failed["key"]
    with pytest.raises(InjectionError, match="no ext2, ext3 or ext4"):
        Injector().inject(disk, "raw", -1, ITEMS, "op1")


def test_a_damaged_file_system_is_an_error_and_nothing_is_left(folder: Path, base: Path) -> None:
    disk = folder / "disk"
    shutil.copy(base, disk)
    with disk.open("r+b") as file:
        file.seek(START + 2048)
        file.write(os.urandom(MIB))
    with pytest.raises(InjectionError):
        Injector().inject(disk, "raw", 2, ITEMS, "op1")


def test_a_file_system_that_was_not_unmounted_is_left_to_those_who_can_replay_its_journal(
    folder: Path, base: Path
) -> None:
    disk = folder / "disk"
    shutil.copy(base, disk)
    run("debugfs", "-w", "-R", "set_super_value feature_incompat 0x2c6", f"{disk}?offset={START}")
    with pytest.raises(InjectionError, match="not cleanly unmounted"):
        Injector("debugfs").inject(disk, "raw", -1, ITEMS, "op1")
    Injector().discard(disk, "op1")
    assert Injector("auto").inject(disk, "raw", -1, ITEMS, "op1").method == "fuse"


# -- who may not mount -------------------------------------------------------------------------------------------------

AS_NOBODY = """
import sys
from pathlib import Path
from virtflow.injection.injector import Injector
from virtflow.injection.plan import GuestItems
done = Injector().inject(Path(sys.argv[1]), sys.argv[2], -1, GuestItems(files={"/etc/motd": b"hello"}), "op1")
print(done.method)
"""


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_without_root_debugfs_does_it(folder: Path, base: Path, disk_format: str) -> None:
    disk = folder / "disk"
    make_overlay(disk, base) if disk_format == "qcow2" else shutil.copy(base, disk)
    sources = Path(__file__).resolve().parents[2]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PYTHONPATH={sources}"]
    python = "/usr/bin/python3"
    for path in (folder, disk):
        os.chown(path, 65534, 65534)
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    probe = [*nobody, "unshare", "-rmpf", python, "-c", "import virtflow, tomllib"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs user namespaces for all, and a Python 3.11 in /usr/bin that may read this project")
    assert run(*nobody, python, "-c", AS_NOBODY, disk, disk_format).decode().strip() == "debugfs"
    assert Inside(disk, disk_format).read("/etc/motd") == b"hello"


# -- the end in the middle ---------------------------------------------------------------------------------------------

SLOW_WORKER = """
import sys, time
from virtflow.injection import worker
write = worker.INJECTORS["files"]
def slowly(guest, items):
    write(guest, items)
    time.sleep({seconds})
    write(guest, items)
worker.INJECTORS["files"] = slowly
worker.main(sys.argv[1])
"""

SLOW = """
import sys
from pathlib import Path
from virtflow.injection import injector
from virtflow.injection.plan import GuestItems
quick = injector._command
injector._command = lambda directory: [*quick(directory)[:-4], "-c", sys.argv[3], str(directory)]
items = GuestItems(files={"/opt/file": b"x" * 3000000})
try:
    injector.Injector(sys.argv[4]).inject(Path(sys.argv[1]), sys.argv[2], -1, items, "op1")
except Exception as error:
    print(type(error).__name__, error)
"""


@dataclass
class Slow:
    """An injection that stays in the middle; ``pids`` are its processes by their names."""

    process: subprocess.Popen[bytes]
    disk: Path

    def pids(self) -> dict[str, int]:
        needle = os.fsencode(leftovers.marker(self.disk, "op1"))
        found = {}
        for each in Path("/proc").glob("[0-9]*"):
            try:
                arguments = (each / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(needle in argument for argument in arguments):
                found[os.path.basename(arguments[0]).decode()[:6]] = int(each.name)
        return found


@pytest.fixture
def slow(folder: Path, base: Path) -> Iterator[Callable[..., Slow]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(disk_format: str, method: str = "fuse", seconds: float = 120) -> Slow:
        disk = folder / "disk"
        make_overlay(disk, base) if disk_format == "qcow2" else shutil.copy(base, disk)
        worker = SLOW_WORKER.format(seconds=seconds)
        command = [sys.executable, "-c", SLOW, disk, disk_format, worker, method]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        needle = str(disk) if disk_format == "raw" else str(leftovers.marker(disk, "op1"))
        if method == "fuse":
            wait_until(lambda: needle in run("losetup", "-a").decode())
        wait_until(lambda: "qemu-s" in Slow(started[-1], disk).pids() or disk_format == "raw")
        time.sleep(0.3)
        return Slow(started[-1], disk)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("disk_format", "method"), [("qcow2", "fuse"), ("raw", "fuse"), ("qcow2", "debugfs")])
def test_a_killed_process_takes_everything_along_but_its_marker(
    slow: Callable[..., Slow], disk_format: str, method: str
) -> None:
    victim = slow(disk_format, method)
    victim.process.kill()
    wait_until(lambda: nothing_left(victim.disk.parent) and not victim.pids())
    assert sorted(os.listdir(victim.disk.parent)) == ["disk", "disk.injecting.op1"]
    assert os.listdir(leftovers.marker(victim.disk, "op1")) == []
    assert [each.operation for each in leftovers.find(victim.disk.parent.parent)] == ["op1"]
    injector = Injector()
    assert injector.interrupted(victim.disk, "op1")
    injector.discard(victim.disk, "op1")
    assert os.listdir(victim.disk.parent) == ["disk"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("victims", [("python",), ("qemu-s", "python"), ("python", "qemu-s"), ("unshar",)])
def test_a_killed_worker_is_an_error_and_nothing_hangs(slow: Callable[..., Slow], victims: tuple[str, ...]) -> None:
    injection = slow("qcow2")
    pids = injection.pids()
    for name in victims:
        os.kill(pids[name], signal.SIGKILL)
    out, _ = injection.process.communicate(timeout=30)
    assert out.decode().startswith("InjectionError cannot inject into ")
    wait_until(lambda: nothing_left(injection.disk.parent))
    assert Injector().interrupted(injection.disk, "op1")


@pytest.mark.timeout(60)
def test_a_daemon_that_dies_is_an_error_and_nothing_hangs(slow: Callable[..., Slow]) -> None:
    injection = slow("qcow2", seconds=1.5)
    os.kill(injection.pids()["qemu-s"], signal.SIGKILL)
    out, _ = injection.process.communicate(timeout=40)
    assert out.decode().startswith("InjectionError cannot inject into ")
    wait_until(lambda: nothing_left(injection.disk.parent))


@pytest.mark.timeout(60)
def test_a_second_process_does_not_inject_beside_the_first(slow: Callable[..., Slow]) -> None:
    first = slow("qcow2")
    with pytest.raises(InjectionError, match="another process is doing it"):
        Injector().inject(first.disk, "qcow2", -1, ITEMS, "op1")
    with pytest.raises(InjectionError, match="lock"):
        Injector().inject(first.disk, "qcow2", -1, ITEMS, "op2")
    Injector().discard(first.disk, "op2")
    first.process.kill()
    wait_until(lambda: nothing_left(first.disk.parent))


@pytest.mark.timeout(60)
def test_a_cancel_ends_it_at_once_and_the_disk_is_known_as_half_injected(
    folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtflow.injection import injector

    quick = injector._command
    slow_worker = SLOW_WORKER.format(seconds=120)
    monkeypatch.setattr(injector, "_command", lambda path: [*quick(path)[:-4], "-c", slow_worker, str(path)])
    disk = make_overlay(folder / "disk", base)

    class Cancelled(Activity):
        def cancelled(self) -> bool:
            return str(folder) in run("losetup", "-a").decode()

    with pytest.raises(OperationCancelled):
        Injector("fuse").inject(disk, "qcow2", -1, ITEMS, "op1", activity=Cancelled("InjectFiles"))
    wait_until(lambda: nothing_left(folder))
    assert Injector().interrupted(disk, "op1")
