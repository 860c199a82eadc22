from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from virtflow.activity import Activity
from virtflow.errors import AlreadyExists, ImageRefused, ImageUnavailable, InvalidRequest, NotFound, OperationCancelled
from virtflow.images.catalog import LocalCatalog
from virtflow.images.records import ImageRecord

MIB = 1 << 20


@pytest.fixture
def catalog(tmp_path: Path) -> LocalCatalog:
    return LocalCatalog(tmp_path / "catalog")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(MIB) + bytes(4 * MIB) + os.urandom(1000) + bytes(24))
    return path


def entries(catalog: LocalCatalog, tmp_path: Path) -> list[str]:
    return sorted(name for name in os.listdir(tmp_path / "catalog") if name != ".lock")


def test_an_added_image_is_found_by_name_and_by_id_and_read_from_any_offset(
    catalog: LocalCatalog, disk: Path, tmp_path: Path
) -> None:
    record = catalog.add(disk, "tiny", "raw", min_disk=2, min_ram=64, properties={"os_type": "linux"})
    content = disk.read_bytes()
    assert record == ImageRecord(
        id=record.id,
        name="tiny",
        source="local",
        disk_format="raw",
        size=len(content),
        checksum=("sha256", hashlib.sha256(content).hexdigest()),
        min_disk=2,
        min_ram=64,
        virtual_size=len(content),
        properties={"os_type": "linux"},
    )
    assert catalog.get("tiny") == catalog.get(record.id) == catalog.get(record.id.upper()) == record
    assert catalog.list() == [record]
    for offset in (0, 1, MIB, len(content)):
        assert b"".join(catalog.read(record, offset)) == content[offset:]
    assert entries(catalog, tmp_path) == [str(uuid.UUID(record.id))]
    assert sorted(os.listdir(tmp_path / "catalog" / record.id)) == ["image", "metadata.json"]
    assert os.stat(tmp_path / "catalog" / record.id / "image").st_blocks * 512 < 2 * MIB


def test_a_record_survives_json(catalog: LocalCatalog, disk: Path) -> None:
    record = catalog.add(disk, "tiny", "raw", properties={"a": "b"})
    assert ImageRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    bare = ImageRecord(id="x", name="", source="glance", disk_format="raw")
    assert ImageRecord.from_dict(json.loads(json.dumps(bare.to_dict()))) == bare


def test_the_virtual_size_is_read_from_the_header(catalog: LocalCatalog, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "3G"], check=True)
    assert catalog.add(path, "q", "qcow2").virtual_size == 3 << 30
    with pytest.raises(ImageRefused, match="above the limit"):
        LocalCatalog(tmp_path / "small", max_virtual_size=(3 << 30) - 1).add(path, "q", "qcow2")


def test_a_name_is_given_once(catalog: LocalCatalog, disk: Path, tmp_path: Path) -> None:
    catalog.add(disk, "tiny", "raw")
    with pytest.raises(AlreadyExists, match="image 'tiny' exists already"):
        catalog.add(disk, "tiny", "raw")
    assert len(entries(catalog, tmp_path)) == 1


def test_a_hostile_image_is_not_added(catalog: LocalCatalog, tmp_path: Path) -> None:
    path = tmp_path / "bad.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/passwd", path, "1G"], check=True
    )
    for declared in ("qcow2", "raw"):
        with pytest.raises(ImageRefused, match="image 'bad' refused"):
            catalog.add(path, "bad", declared)
    assert catalog.list() == []
    assert entries(catalog, tmp_path) == []


@pytest.mark.parametrize("name", ["", "a" * 256, "nul\0", "line\nbreak", "esc\x1b[2J", "\ud800"])
def test_a_name_that_cannot_be_shown_is_refused(name: str, catalog: LocalCatalog, disk: Path) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        catalog.add(disk, name, "raw")
    assert wrong.value.field == "name"


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "-rf", "x'\"y", "é", "a" * 255, ".hidden"])
def test_an_odd_name_is_only_a_name(name: str, catalog: LocalCatalog, disk: Path, tmp_path: Path) -> None:
    record = catalog.add(disk, name, "raw")
    assert catalog.get(name) == record
    assert entries(catalog, tmp_path) == [record.id]
    assert catalog.remove(name) == record
    assert entries(catalog, tmp_path) == []


@pytest.mark.parametrize(
    "name_or_id",
    ["", "..", "../catalog", "a/b", "nul\0", "\ud800", "x" * 10_000, "5c6c1c27-59c0-4c5f-8c49-b5c8a26b0d0e"],
)
def test_what_is_not_there_is_not_found(name_or_id: str, catalog: LocalCatalog, disk: Path) -> None:
    with pytest.raises(NotFound, match="image"):
        catalog.get(name_or_id)
    catalog.add(disk, "tiny", "raw")
    with pytest.raises(NotFound):
        catalog.remove(name_or_id)


def test_a_file_that_cannot_be_read_is_the_users_mistake(catalog: LocalCatalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", "nul\0", "/dev/zero"):
        with pytest.raises(InvalidRequest) as wrong:
            catalog.add(path, "x", "raw")
        assert wrong.value.field == "file"


@pytest.mark.parametrize(("field", "value"), [("min_disk", -1), ("min_ram", -1)])
def test_a_negative_minimum_is_refused(field: str, value: int, catalog: LocalCatalog, disk: Path) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        catalog.add(disk, "x", "raw", **{field: value})
    assert wrong.value.field == field


def test_an_unknown_format_is_refused_with_the_known_ones(catalog: LocalCatalog, disk: Path) -> None:
    with pytest.raises(InvalidRequest, match="'exe' is not one of raw, iso, qcow2"):
        catalog.add(disk, "x", "exe")


def test_a_cancelled_add_leaves_nothing(catalog: LocalCatalog, disk: Path, tmp_path: Path) -> None:
    class Cancelled(Activity):
        done = 0

        def report(self, done: int, total: int | None) -> None:
            self.done = done

        def cancelled(self) -> bool:
            return self.done >= 2 * MIB

    with pytest.raises(OperationCancelled):
        catalog.add(disk, "x", "raw", activity=Cancelled())
    assert entries(catalog, tmp_path) == []


class _Slow(Activity):
    def report(self, done: int, total: int | None) -> None:
        time.sleep(0.2)


def _add_slowly(path: Path, disk: Path) -> None:
    LocalCatalog(path).add(disk, "slow", "raw", activity=_Slow())


def test_a_killed_add_leaves_nothing_visible_and_the_next_one_clears_it(
    catalog: LocalCatalog, disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "catalog").mkdir()
    process = multiprocessing.get_context("fork").Process(target=_add_slowly, args=(tmp_path / "catalog", disk))
    process.start()
    deadline = time.monotonic() + 20
    while not any((tmp_path / "catalog").glob(".adding-*/image")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert catalog.list() == []
    assert len(entries(catalog, tmp_path)) == 1
    record = catalog.add(disk, "slow", "raw")
    assert entries(catalog, tmp_path) == [record.id]


def test_an_entry_with_unreadable_metadata_does_not_hide_the_others(
    catalog: LocalCatalog, disk: Path, tmp_path: Path
) -> None:
    record = catalog.add(disk, "tiny", "raw")
    for content in ("{", "[]", '{"id": "other"}'):
        broken = tmp_path / "catalog" / str(uuid.uuid4())
        broken.mkdir()
        (broken / "metadata.json").write_text(content)
    (tmp_path / "catalog" / str(uuid.uuid4())).write_text("a file")
    assert catalog.list() == [record]


def test_an_image_that_vanished_is_unavailable(catalog: LocalCatalog, disk: Path) -> None:
    record = catalog.add(disk, "tiny", "raw")
    catalog.remove("tiny")
    with pytest.raises(ImageUnavailable, match="No such file"):
        list(catalog.read(record, 0))
    foreign = ImageRecord(id="../../etc/passwd", name="x", source="local", disk_format="raw")
    with pytest.raises(ImageUnavailable, match="not of the local catalog"):
        catalog.read(foreign, 0)
