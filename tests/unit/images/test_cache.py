from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from virtflow.activity import Activity
from virtflow.errors import (
    CommandFailed,
    HostStorageError,
    ImageRefused,
    ImageUnavailable,
    InvalidRequest,
    OperationCancelled,
)
from virtflow.files.lock import hold
from virtflow.images.cache import CachedBase, ImageCache
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord, ImageRecords

MIB = 1 << 20
GIB = 1 << 30


class FileSource:
    """One file as an image source; counts in a file, so that processes can be counted together."""

    name = "file"

    def __init__(self, path: Path, *, pause: float = 0.0, chunk: int = MIB) -> None:
        self.path, self.pause, self.chunk = path, pause, chunk
        self.calls = path.with_name(path.name + ".calls")
        self.breaks_at: int | None = None

    def offsets(self) -> list[int]:
        return [int(line) for line in self.calls.read_text().split()] if self.calls.exists() else []

    def get(self, name_or_id: str) -> ImageRecord:
        raise NotImplementedError

    def list(self) -> ImageRecords:
        raise NotImplementedError

    def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
        with self.calls.open("a") as calls:
            calls.write(f"{offset}\n")
        with self.path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(self.chunk):
                if self.breaks_at is not None and file.tell() > self.breaks_at:
                    raise ImageUnavailable(image=record.id, reason="connection reset")
                time.sleep(self.pause)
                yield chunk


def record_of(path: Path, disk_format: str, **changes: Any) -> ImageRecord:
    content = path.read_bytes()
    values: dict[str, Any] = {
        "size": len(content),
        "checksum": ("sha512", hashlib.sha512(content).hexdigest()),
        **changes,
    }
    return ImageRecord(id=str(uuid.uuid4()), name="img", source="file", disk_format=disk_format, **values)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw.img"
    path.write_bytes(os.urandom(3 * MIB) + bytes(4 * MIB) + os.urandom(MIB) + bytes(MIB))
    return path


@pytest.fixture
def qcow2(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


def cache_in(directory: Path, qemu_img: QemuImg | None = None, **options: Any) -> ImageCache:
    return ImageCache(directory / "_base", directory / "locks", qemu_img or QemuImg(), **options)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return cache_in(tmp_path)


def files_in(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "_base").iterdir()}


def sha1(record: ImageRecord) -> str:
    return hashlib.sha1(record.id.encode()).hexdigest()


class QemuImgMustNotRun(QemuImg):
    def __init__(self) -> None:
        super().__init__("/nonexistent/qemu-img")


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_fetched_base_is_raw_and_equal_to_the_disk(kind: str, tmp_path: Path, cache: ImageCache, raw, qcow2) -> None:
    path = raw if kind == "raw" else qcow2
    record = record_of(path, kind)
    base = cache.fetch(record, FileSource(path))
    name = sha1(record)
    assert base == CachedBase(
        path=str(tmp_path / "_base" / name),
        format="raw",
        virtual_size=9 * MIB,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        image_id=record.id,
    )
    assert Path(base.path).read_bytes() == raw.read_bytes()
    assert files_in(tmp_path) == {name, name + ".json"}
    assert cache.bases() == [base]
    assert cache.leftovers() == []


def test_a_raw_image_is_published_without_qemu_img_and_with_its_holes(tmp_path: Path, raw: Path) -> None:
    cache = cache_in(tmp_path, QemuImgMustNotRun())
    base = cache.fetch(record_of(raw, "raw"), FileSource(raw))
    assert os.stat(base.path).st_blocks * 512 <= 4 * MIB + 65536
    assert os.stat(base.path).st_mode & 0o777 == 0o644


def test_a_cached_base_needs_neither_the_source_nor_qemu_img(tmp_path: Path, qcow2: Path) -> None:
    record, source = record_of(qcow2, "qcow2"), FileSource(qcow2)
    base = cache_in(tmp_path).fetch(record, source)
    cache_in(tmp_path).size_base(base, GIB)
    qcow2.unlink()
    idle = cache_in(tmp_path, QemuImgMustNotRun())
    assert idle.fetch(record, source) == base
    assert idle.size_base(base, GIB) == base.path + "_1"
    assert len(source.offsets()) == 1


def test_a_cached_base_costs_under_five_milliseconds(cache: ImageCache, raw: Path) -> None:
    record, source = record_of(raw, "raw"), FileSource(raw)
    base = cache.fetch(record, source)
    cache.size_base(base, GIB)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        cache.fetch(record, source)
        cache.size_base(base, GIB)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[10] < 0.005


def test_a_download_that_broke_off_goes_on_where_it_ended(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    record, source = record_of(raw, "raw"), FileSource(raw)
    source.breaks_at = 5 * MIB
    with pytest.raises(ImageUnavailable, match="connection reset"):
        cache.fetch(record, source)
    assert files_in(tmp_path) == {sha1(record) + ".part"}
    source.breaks_at = None
    base = cache.fetch(record, source)
    assert source.offsets() == [0, 5 * MIB]
    assert Path(base.path).read_bytes() == raw.read_bytes()
    assert base.sha256 == hashlib.sha256(raw.read_bytes()).hexdigest()


def test_a_truncated_download_is_never_published(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    record = record_of(raw, "raw", size=9 * MIB + 1)
    with pytest.raises(ImageUnavailable, match="ended after 9437184 of 9437185 bytes"):
        cache.fetch(record, FileSource(raw))
    assert files_in(tmp_path) == {sha1(record) + ".part"}
    assert cache.bases() == []


def test_more_bytes_than_announced_are_refused_and_nothing_is_kept(tmp_path, cache: ImageCache, raw: Path) -> None:
    with pytest.raises(ImageUnavailable, match="more than the 9437183 bytes announced"):
        cache.fetch(record_of(raw, "raw", size=9 * MIB - 1), FileSource(raw))
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha512"])
def test_a_wrong_checksum_keeps_nothing(algorithm: str, tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    wrong = hashlib.new(algorithm, b"something else").hexdigest()
    record = record_of(raw, "raw", checksum=(algorithm, wrong))
    with pytest.raises(ImageUnavailable, match=f"its {algorithm} checksum does not match"):
        cache.fetch(record, FileSource(raw))
    assert files_in(tmp_path) == set()


def test_a_damaged_part_is_found_by_the_checksum_and_the_next_fetch_starts_anew(
    tmp_path: Path, cache: ImageCache, raw: Path
) -> None:
    record, source = record_of(raw, "raw"), FileSource(raw)
    (tmp_path / "_base").mkdir()
    (tmp_path / "_base" / f"{sha1(record)}.part").write_bytes(os.urandom(MIB))
    with pytest.raises(ImageUnavailable, match="checksum"):
        cache.fetch(record, source)
    assert Path(cache.fetch(record, source).path).read_bytes() == raw.read_bytes()
    assert source.offsets() == [MIB, 0]


def test_without_a_checksum_a_part_is_not_trusted(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    record, source = record_of(raw, "raw", checksum=None, size=None), FileSource(raw)
    (tmp_path / "_base").mkdir()
    (tmp_path / "_base" / f"{sha1(record)}.part").write_bytes(os.urandom(MIB))
    assert Path(cache.fetch(record, source).path).read_bytes() == raw.read_bytes()
    assert source.offsets() == [0]


def test_a_checksum_that_this_host_cannot_compute_is_an_error(cache: ImageCache, raw: Path) -> None:
    with pytest.raises(ImageUnavailable, match="checksum needs rot13"):
        cache.fetch(record_of(raw, "raw", checksum=("rot13", "00")), FileSource(raw))


def test_a_hostile_image_is_refused_before_the_rest_is_downloaded(tmp_path: Path) -> None:
    path = tmp_path / "bad.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", path, "1G"], check=True
    )
    with path.open("ab") as file:
        file.write(os.urandom(20 * MIB))
    record, source = record_of(path, "qcow2"), FileSource(path)
    seen: list[int] = []

    class Seen(Activity):
        def report(self, done: int, total: int | None) -> None:
            seen.append(done)

    cache = cache_in(tmp_path, QemuImgMustNotRun())
    with pytest.raises(ImageRefused, match="backing file"):
        cache.fetch(record, source, Seen())
    assert max(seen) == MIB
    assert files_in(tmp_path) == set()


def test_a_small_hostile_image_is_refused_without_qemu_img_and_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "bad.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", path, "1G"], check=True
    )
    cache = cache_in(tmp_path, QemuImgMustNotRun())
    with pytest.raises(ImageRefused, match="backing file"):
        cache.fetch(record_of(path, "qcow2"), FileSource(path))
    assert files_in(tmp_path) == set()


def test_a_disk_whose_content_is_a_qcow2_header_is_refused_after_conversion(tmp_path: Path, cache: ImageCache) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", inner, "1G"], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", inner, outer], check=True)
    with pytest.raises(ImageRefused, match="the disk in it begins with a qcow2 header"):
        cache.fetch(record_of(outer, "qcow2"), FileSource(outer))
    assert files_in(tmp_path) == set()


def test_the_limit_of_the_virtual_size_is_configurable(tmp_path: Path, qcow2: Path) -> None:
    with pytest.raises(ImageRefused, match="above the limit"):
        cache_in(tmp_path, max_virtual_size=MIB).fetch(record_of(qcow2, "qcow2"), FileSource(qcow2))


def test_qemu_img_has_to_agree_with_the_inspection(tmp_path: Path, qcow2: Path) -> None:
    """A program that reads the header differently stands for every trick the inspection does not know."""
    other = tmp_path / "qemu-img"
    other.write_text(f'#!/bin/sh\nqemu-img "$@" | sed \'s/"virtual-size": {9 * MIB}/"virtual-size": 1048576/\'\n')
    other.chmod(0o755)
    with pytest.raises(ImageRefused, match="its header says 9437184 bytes, qemu-img 1048576"):
        cache_in(tmp_path, QemuImg(str(other))).fetch(record_of(qcow2, "qcow2"), FileSource(qcow2))
    assert files_in(tmp_path) == set()


def test_threads_download_one_image_once(cache: ImageCache, qcow2: Path) -> None:
    record, source = record_of(qcow2, "qcow2"), FileSource(qcow2, pause=0.03)
    with ThreadPoolExecutor(8) as pool:
        bases = list(pool.map(lambda _: cache.fetch(record, source), range(8)))
        sized = set(pool.map(lambda base: cache.size_base(base, GIB), bases))
    assert len(source.offsets()) == 1
    assert set(bases) == {bases[0]}
    assert sized == {bases[0].path + "_1"}


def fetch_in_process(directory: Path, record: ImageRecord, source: FileSource, slow_qemu_img: str = "qemu-img") -> None:
    cache = cache_in(directory, QemuImg(slow_qemu_img))
    cache.size_base(cache.fetch(record, source), GIB)


def test_processes_download_one_image_once(tmp_path: Path, qcow2: Path) -> None:
    record, source = record_of(qcow2, "qcow2"), FileSource(qcow2, pause=0.05)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch_in_process, args=(tmp_path, record, source)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(source.offsets()) == 1
    assert files_in(tmp_path) == {sha1(record), sha1(record) + ".json", sha1(record) + "_1"}


def kill_when(tmp_path: Path, record: ImageRecord, source: FileSource, appears: str, qemu_img: str) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=fetch_in_process, args=(tmp_path, record, source, qemu_img)
    )
    process.start()
    deadline = time.monotonic() + 20
    while not [name for name in os.listdir(tmp_path / "_base") if re.search(appears, name)]:
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)


@pytest.mark.parametrize("appears", [r"\.part$", r"\.converted$"])
@pytest.mark.parametrize("then", ["fetch", "remove"])
def test_a_killed_fetch_leaves_only_what_the_next_one_deals_with(
    appears: str, then: str, tmp_path: Path, qcow2: Path
) -> None:
    slow = tmp_path / "slow-qemu-img"
    slow.write_text('#!/bin/sh\nfor last; do :; done\n[ "$1" != convert ] || { echo x > "$last"; sleep 30; }\n')
    slow.write_text(slow.read_text() + 'exec qemu-img "$@"\n')
    slow.chmod(0o755)
    (tmp_path / "_base").mkdir()
    record, source = record_of(qcow2, "qcow2"), FileSource(qcow2, pause=0.2 if "part" in appears else 0)
    kill_when(tmp_path, record, source, appears, str(slow))
    name, cache = sha1(record), cache_in(tmp_path)
    left = {name + ".part"} | ({name + ".converted"} if "converted" in appears else set())
    assert files_in(tmp_path) == left
    assert {path.name for path in cache.leftovers()} == left
    assert cache.bases() == []
    if then == "fetch":
        base = cache.fetch(record, FileSource(qcow2))
        subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", base.path, qcow2], check=True)
        assert files_in(tmp_path) == {name, name + ".json"}
    else:
        assert {path.name for path in cache.remove_leftovers()} == left
        assert files_in(tmp_path) == set()


def test_work_that_goes_on_is_no_leftover(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    record, source = record_of(raw, "raw"), FileSource(raw, pause=0.1)
    thread = threading.Thread(target=cache.fetch, args=(record, source))
    thread.start()
    while not (tmp_path / "_base" / f"{sha1(record)}.part").exists():
        time.sleep(0.005)
    assert cache.leftovers() == []
    assert cache.remove_leftovers() == []
    thread.join()
    assert len(cache.bases()) == 1


def test_foreign_files_in_the_directory_are_left_alone(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    cache.fetch(record_of(raw, "raw"), FileSource(raw))
    foreign = {"notes.part", "ephemeral_1_default", "a" * 40, "b" * 40 + ".converted.bak"}
    for name in foreign:
        (tmp_path / "_base" / name).write_text("mine")
    assert cache.remove_leftovers() == []
    assert len(cache.bases()) == 1
    assert cache.prune([], -1000) != []
    assert files_in(tmp_path) == foreign


def test_a_sidecar_without_its_base_is_a_leftover(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    """A kill between the two renames of publishing leaves it."""
    record, source = record_of(raw, "raw"), FileSource(raw)
    os.unlink(cache.fetch(record, source).path)
    assert cache.bases() == []
    assert [path.name for path in cache.leftovers()] == [sha1(record) + ".json"]
    cache.fetch(record, source)
    assert cache.leftovers() == []
    assert len(source.offsets()) == 2


@pytest.mark.parametrize("damage", ["shorter", "header", "sidecar"])
def test_a_base_that_was_tampered_with_is_fetched_again(damage: str, cache: ImageCache, raw: Path) -> None:
    record, source = record_of(raw, "raw"), FileSource(raw)
    base = cache.fetch(record, source)
    if damage == "shorter":
        os.truncate(base.path, 5 * MIB)
    elif damage == "header":
        with open(base.path, "r+b") as file:
            file.write(b"QFI\xfb")
    else:
        Path(base.path + ".json").write_text('{"format": ')
    assert cache.fetch(record, source) == base
    assert Path(base.path).read_bytes() == raw.read_bytes()
    assert len(source.offsets()) == 2


def test_a_cancelled_download_stops_and_can_be_resumed(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    class Cancelled(Activity):
        done = 0

        def report(self, done: int, total: int | None) -> None:
            self.done = done

        def cancelled(self) -> bool:
            return self.done >= 3 * MIB

    record, source = record_of(raw, "raw"), FileSource(raw)
    with pytest.raises(OperationCancelled):
        cache.fetch(record, source, Cancelled("FetchBase"))
    assert (tmp_path / "_base" / f"{sha1(record)}.part").stat().st_size == 3 * MIB
    cache.fetch(record, source)
    assert source.offsets() == [0, 3 * MIB]


def test_waiting_for_the_lock_of_a_base_can_be_cancelled(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    record = record_of(raw, "raw")
    with (
        hold(tmp_path / "locks" / f"base-{sha1(record)}"),
        pytest.raises(Exception, match="FetchBase took longer"),
    ):
        cache.fetch(record, FileSource(raw), Activity("FetchBase", time.monotonic() + 0.1))


def test_a_failed_conversion_leaves_the_download_only(tmp_path: Path, qcow2: Path) -> None:
    failing = tmp_path / "qemu-img"
    failing.write_text('#!/bin/sh\n[ "$1" != convert ] || { echo no space >&2; exit 1; }\nexec qemu-img "$@"\n')
    failing.chmod(0o755)
    record = record_of(qcow2, "qcow2")
    with pytest.raises(CommandFailed, match="no space"):
        cache_in(tmp_path, QemuImg(str(failing))).fetch(record, FileSource(qcow2))
    assert files_in(tmp_path) == {sha1(record) + ".part"}


def test_a_host_that_cannot_store_says_so(tmp_path: Path, raw: Path) -> None:
    (tmp_path / "_base").write_text("a file where the directory should be")
    with pytest.raises(HostStorageError, match=r"cannot use .*_base: Not a directory"):
        cache_in(tmp_path).fetch(record_of(raw, "raw"), FileSource(raw))


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "x" * 10_000, "nul\0", "new\nline", "\ud800", "-rf"])
def test_whatever_an_image_is_called_its_file_is_a_digest(image_id: str, tmp_path: Path, raw: Path) -> None:
    cache = cache_in(tmp_path)
    record = ImageRecord(id=image_id, name="n", source="file", disk_format="raw")
    base = cache.fetch(record, FileSource(raw))
    assert Path(base.path).parent == tmp_path / "_base"
    assert re.fullmatch(r"[0-9a-f]{40}", Path(base.path).name)
    assert cache.fetch(record, FileSource(raw)).image_id == image_id


def test_a_sized_base_is_a_sparse_copy_extended_to_the_size(tmp_path: Path, cache: ImageCache, qcow2, raw) -> None:
    base = cache.fetch(record_of(qcow2, "qcow2"), FileSource(qcow2))
    sized = cache.size_base(base, 3 * GIB)
    assert sized == base.path + "_3"
    assert os.stat(sized).st_size == 3 * GIB
    assert os.stat(sized).st_blocks * 512 <= 5 * MIB
    with open(sized, "rb") as file:
        assert file.read(9 * MIB) == raw.read_bytes()
    assert cache.leftovers() == []


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (8 * MIB, "disk: 0.008 GiB is smaller than the image's virtual size of 0.009 GiB"),
        (0, "smaller"),
        (GIB + 1, "no whole number of GiB"),
    ],
)
def test_a_disk_smaller_than_the_image_is_the_users_mistake(size: int, reason: str, cache: ImageCache, raw) -> None:
    base = cache.fetch(record_of(raw, "raw"), FileSource(raw))
    with pytest.raises(InvalidRequest, match=reason) as wrong:
        cache.size_base(base, size)
    assert wrong.value.field == "disk"


def test_a_killed_copy_of_a_sized_base_is_redone(tmp_path: Path, cache: ImageCache, raw: Path) -> None:
    base = cache.fetch(record_of(raw, "raw"), FileSource(raw))
    staged = Path(base.path + "_1.part")
    staged.write_bytes(b"half")
    assert cache.leftovers() == [staged]
    cache.size_base(base, GIB)
    assert cache.leftovers() == []


def test_prune_keeps_what_is_in_use_and_what_was_asked_for_lately(tmp_path: Path, cache: ImageCache, raw) -> None:
    source = FileSource(raw)
    used, old, fresh = (record_of(raw, "raw") for _ in range(3))
    bases = {record.id: cache.fetch(record, source) for record in (used, old, fresh)}
    sized = cache.size_base(bases[old.id], GIB)
    past = time.time() - 1000
    for path in (*(base.path + ".json" for base in bases.values()), sized):
        os.utime(path, (past, past))
    cache.fetch(fresh, source)
    removed = cache.prune([bases[used.id].path], unused_seconds=500)
    assert {str(path) for path in removed} == {sized, bases[old.id].path}
    assert {base.image_id for base in cache.bases()} == {used.id, fresh.id}
    assert cache.leftovers() == []


def test_progress_is_told_in_bytes_and_ends_complete(cache: ImageCache, qcow2: Path) -> None:
    told: list[tuple[int, int | None]] = []

    class Told(Activity):
        def report(self, done: int, total: int | None) -> None:
            told.append((done, total))

    cache.fetch(record_of(qcow2, "qcow2"), FileSource(qcow2), Told())
    size = qcow2.stat().st_size
    assert (size, size) in told
    assert told[-1] == (9 * MIB, 9 * MIB)
    assert all(total is not None and 0 <= done <= total for done, total in told)


def test_memory_does_not_grow_with_the_image(tmp_path: Path, cache: ImageCache) -> None:
    path = tmp_path / "big.img"
    with path.open("wb") as file:
        for gib in range(0, 256, 16):
            file.seek(gib * MIB)
            file.write(os.urandom(MIB))
        file.truncate(256 * MIB)
    record = ImageRecord(id="big", name="big", source="file", disk_format="raw", size=256 * MIB)
    tracemalloc.start()
    try:
        base = cache.fetch(record, FileSource(path))
        cache.size_base(base, GIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert os.stat(base.path).st_blocks * 512 < 32 * MIB


def test_the_sidecar_is_plain_json_without_host_paths(cache: ImageCache, raw: Path) -> None:
    record = record_of(raw, "raw")
    base = cache.fetch(record, FileSource(raw))
    with contextlib.closing(open(base.path + ".json")) as file:
        plain = json.load(file)
    assert plain == {"format": "raw", "virtual_size": 9 * MIB, "sha256": base.sha256, "image_id": record.id}
