from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import CommandFailed, HostLacks, HostStorageError, InvalidRequest, OperationCancelled
from virtflow.files.lock import hold
from virtflow.images import blank_bases
from virtflow.images.blank_bases import FILESYSTEMS, LARGEST_GIB, BlankBases
from virtflow.images.cache import ImageCache
from virtflow.images.qemu_img import QemuImg

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def bases(tmp_path: Path) -> BlankBases:
    return BlankBases(tmp_path / "_base", tmp_path / "locks")


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "_base", tmp_path / "locks", QemuImg())


def blkid(path: Path | str) -> dict[str, str]:
    out = subprocess.run(["blkid", "-p", "-o", "export", str(path)], check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in out.splitlines())


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Puts a program of that name before all others."""
    directory = tmp_path / "bin"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    monkeypatch.setattr(blank_bases, "_SEARCH_PATH", f"{directory}:{blank_bases._SEARCH_PATH}")


@pytest.mark.parametrize(("filesystem", "kind"), [("ext4", "ext4"), ("ext3", "ext3"), ("vfat", "vfat")])
def test_an_ephemeral_base_is_an_empty_labelled_file_system_of_its_size(
    filesystem: str, kind: str, bases: BlankBases, tmp_path: Path
) -> None:
    base = bases.ephemeral(1, filesystem, "ephemeral0")
    assert Path(base.path) == tmp_path / "_base" / f"ephemeral_1_{filesystem}_ephemeral0"
    found = blkid(base.path)
    assert (found["TYPE"], found["LABEL"]) == (kind, "ephemeral0")
    assert os.stat(base.path).st_size == base.size == GIB
    checker = ["fsck.vfat", "-n"] if filesystem == "vfat" else ["e2fsck", "-fn"]
    subprocess.run([*checker, base.path], check=True, capture_output=True)


def test_a_base_takes_little_space_however_large_it_is(bases: BlankBases) -> None:
    base = bases.ephemeral(200, "ext4", "ephemeral0")
    assert os.stat(base.path).st_blocks * 512 < 32 * MIB
    subprocess.run(["e2fsck", "-fn", base.path], check=True, capture_output=True)


def test_a_swap_base_is_a_labelled_swap_area_of_its_size(bases: BlankBases, tmp_path: Path) -> None:
    base = bases.swap(64)
    assert Path(base.path) == tmp_path / "_base" / "swap_64"
    assert os.stat(base.path).st_size == base.size == 64 * MIB
    found = blkid(base.path)
    assert (found["TYPE"], found["LABEL"]) == ("swap", "swap")


def test_a_base_is_made_once_and_used_again(bases: BlankBases) -> None:
    first = Path(bases.ephemeral(1, "ext4", "ephemeral0").path)
    content, inode = blkid(first)["UUID"], first.stat().st_ino
    os.utime(first, (0, 0))
    assert Path(bases.ephemeral(1, "ext4", "ephemeral0").path).stat().st_ino == inode
    assert blkid(first)["UUID"] == content
    assert first.stat().st_mtime > time.time() - 60


def test_disks_that_one_guest_can_have_together_never_share_a_base(bases: BlankBases) -> None:
    made = [bases.ephemeral(1, "ext4", "ephemeral0"), bases.ephemeral(1, "ext4", "ephemeral1"), bases.swap(1024)]
    assert len({blkid(base.path)["UUID"] for base in made}) == 3


def test_threads_that_want_the_same_base_make_it_once(
    bases: BlankBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    program(tmp_path, monkeypatch, "mkswap", f'echo x >> {calls}; sleep 0.3; exec /sbin/mkswap "$@"')
    with ThreadPoolExecutor(4) as pool:
        made = {base.path for base in pool.map(lambda _: bases.swap(8), range(4))}
    assert (len(made), calls.read_text()) == (1, "x\n")


def test_a_program_that_fails_publishes_nothing_and_the_next_attempt_makes_it(
    bases: BlankBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        program(tmp_path, patch, "mke2fs", "echo no space >&2; exit 1")
        with pytest.raises(CommandFailed, match="mke2fs failed with exit status 1: no space"):
            bases.ephemeral(1, "ext4", "ephemeral0")
    assert list((tmp_path / "_base").iterdir()) == []
    assert blkid(bases.ephemeral(1, "ext4", "ephemeral0").path)["TYPE"] == "ext4"


def test_a_killed_maker_leaves_no_base_and_what_it_left_is_swept_up_or_made_again(
    bases: BlankBases, cache: ImageCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SP3: a base made in place would be taken for a formatted one ever after."""
    pid = os.fork()
    if pid == 0:
        program(tmp_path, monkeypatch, "mkswap", "sleep 60")
        bases.swap(8)
        os._exit(0)
    part = tmp_path / "_base" / "swap_8.part"
    deadline = time.monotonic() + 10
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cache.leftovers() == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not (tmp_path / "_base" / "swap_8").exists()
    while not cache.leftovers() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cache.leftovers() == [part]
    assert blkid(bases.swap(8).path)["TYPE"] == "swap"
    assert cache.leftovers() == []
    part.write_bytes(b"half")
    assert cache.remove_leftovers() == [part]
    assert not part.exists()


def test_a_cancelled_maker_leaves_nothing(bases: BlankBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(Activity):
        def cancelled(self) -> bool:
            return time.monotonic() > deadline

    program(tmp_path, monkeypatch, "mkswap", "sleep 60")
    deadline = time.monotonic() + 0.3
    with pytest.raises(OperationCancelled):
        bases.swap(8, Cancelled("CreateSwap"))
    assert list((tmp_path / "_base").iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.truncate(path, GIB // 2),
        lambda path: path.open("r+b").write(b"QFI\xfb"),
        lambda path: os.pwrite(os.open(path, os.O_WRONLY), bytes(4096), 0),
    ],
    ids=["cut off", "qcow2 header", "no file system"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_base_that_is_no_longer_what_was_made_is_refused_and_kept(spoil, bases: BlankBases) -> None:  # type: ignore[no-untyped-def]
    path = Path(bases.ephemeral(1, "ext4", "ephemeral0").path)
    spoil(path)
    with pytest.raises(HostStorageError, match=f"cannot use {re.escape(str(path))}: it is not the ext4"):
        bases.ephemeral(1, "ext4", "ephemeral0")
    assert path.exists()


def test_a_missing_program_is_named_with_its_package(bases: BlankBases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blank_bases, "_SEARCH_PATH", "/nonexistent")
    with pytest.raises(HostLacks, match=r"mkfs\.vfat not found; run: apt-get install .* dosfstools"):
        bases.ephemeral(1, "vfat", "ephemeral0")


@pytest.mark.parametrize(
    ("size", "filesystem"), [(0, "ext4"), (-1, "ext4"), (2048, "vfat"), (16384, "ext3"), (1, "xfs")]
)
def test_a_size_or_file_system_that_cannot_be_made_is_refused(size: int, filesystem: str, bases: BlankBases) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bases.ephemeral(size, filesystem, "ephemeral0")
    assert refused.value.field == "ephemeral_gib"


@pytest.mark.parametrize("label", ["../x", "", "a" * 12, "A B", "x\n"])
def test_a_label_never_becomes_a_path(label: str, bases: BlankBases, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        bases.ephemeral(1, "ext4", label)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_the_largest_size_of_each_file_system_can_be_made(filesystem: str, bases: BlankBases, tmp_path: Path) -> None:
    """Checked by the programs themselves, which look at the size before they write."""
    path = tmp_path / "largest"
    try:
        with path.open("wb") as file:
            file.truncate(LARGEST_GIB[filesystem] * GIB)
    except OSError:
        pytest.skip("the file system of the temporary directory takes no file of this size")
    argv = {"vfat": ["mkfs.vfat", "-n", "ephemeral0"]}.get(filesystem, ["mke2fs", "-n", "-F", "-q", "-t", filesystem])
    subprocess.run([*argv, str(path)], check=True, capture_output=True, env={"PATH": blank_bases._SEARCH_PATH})


def test_unused_bases_age_out_and_used_or_fresh_ones_stay(bases: BlankBases, cache: ImageCache, tmp_path: Path) -> None:
    old, used, fresh, busy = (Path(bases.swap(size).path) for size in (8, 16, 24, 32))
    for path in (old, used, busy):
        os.utime(path, (0, 0))
    with hold(tmp_path / "locks" / "base-swap_32"):
        assert cache.prune({str(used)}, 3600) == [old]
    assert (old.exists(), used.exists(), fresh.exists(), busy.exists()) == (False, True, True, True)
