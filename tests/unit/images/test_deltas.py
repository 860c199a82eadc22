"""Images that hold only what changed over another one: as far as they are honest, and as far as they are not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from virtflow.errors import HostStorageError, ImageRefused, ImageUnavailable, NotFound
from virtflow.images import names
from virtflow.images.cache import ImageCache
from virtflow.images.catalog import LocalCatalog
from virtflow.images.deltas import CachedDelta, DeltaCache
from virtflow.images.disk_backends import BACKENDS, DiskPlan, make_disk_from_delta
from virtflow.images.kinds import DELTA, IMAGE, SNAPSHOT, kind_of, made_from
from virtflow.images.qemu_img import QemuImg
from virtflow.images.records import ImageRecord

MIB = 1 << 20
GIB = 1 << 30
NAME = b"0" * 40


class Watched(QemuImg):
    """Looks, before every call of qemu-img, at which backing files the qcow2 files around name."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory, self.seen = directory, set[str]()

    def _look(self) -> None:
        for path in self.directory.rglob("*"):
            if path.is_file() and path.suffix != ".part":
                head = path.read_bytes()[:4096]
                if head.startswith(b"QFI\xfb"):
                    offset, size = struct.unpack_from(">QI", head, 8)
                    self.seen.add(head[offset : offset + size].decode() if offset else "")

    def info(self, *arguments: Any, **options: Any) -> Any:
        self._look()
        return super().info(*arguments, **options)

    def check(self, *arguments: Any, **options: Any) -> None:
        self._look()
        super().check(*arguments, **options)

    def rebase(self, *arguments: Any, **options: Any) -> None:
        self._look()
        super().rebase(*arguments, **options)


class Host:
    """A host with a base image in its source, and a snapshot made over the base that the cache made of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.catalog = LocalCatalog(path / "catalog")
        self.qemu_img = Watched(path / "_base")
        self.cache = ImageCache(path / "_base", path / "locks", self.qemu_img)
        self.deltas = DeltaCache(path / "_base", path / "locks", self.qemu_img)
        content = path / "content.raw"
        content.write_bytes(os.urandom(MIB) + bytes(6 * MIB) + os.urandom(MIB))
        self.base = self.catalog.add(content, "base", "raw")
        self.sha1 = hashlib.sha1(self.base.id.encode()).hexdigest()

    def changes(self, backing: str | None = None, *, size: str = "8M", at: str = "4M") -> Path:
        """What `qemu-img rebase -u` leaves of an overlay for somebody who uploads it."""
        backing = self.sha1 if backing is None else backing
        raw, path = self.path / backing.replace("/", "_"), self.path / "delta.qcow2"
        shutil.copy(self.path / "content.raw", raw)
        with raw.open("r+b") as file:
            file.truncate(max(raw.stat().st_size, 8 * MIB))
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw), str(path), size]
        subprocess.run(create, check=True)
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", f"write -P 77 {at} 64k", str(path)], check=True, capture_output=True
        )
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, str(path)], check=True)
        raw.unlink()
        return path

    def snapshot(self, path: Path, **properties: str) -> ImageRecord:
        known = {"image_type": "snapshot", "base_image_id_sha1": self.sha1}
        return self.catalog.add(path, f"snapshot-{len(self.catalog.list())}", "qcow2", properties=known | properties)

    def unchecked(self, path: Path) -> tuple[ImageRecord, Any]:
        """A source that has looked at nothing, such as Glance."""
        data = path.read_bytes()
        record = ImageRecord("evil", "evil", "glance", "qcow2", len(data), ("sha256", hashlib.sha256(data).hexdigest()),
                             properties={"image_type": "snapshot", "base_image_id_sha1": self.sha1})  # fmt: skip

        class Source:
            def read(self, record: ImageRecord, offset: int) -> Iterator[bytes]:
                for start in range(offset, len(data), MIB):
                    yield data[start : start + MIB]

        return record, Source()

    def expected(self, size: int) -> bytes:
        data = bytearray((self.path / "content.raw").read_bytes().ljust(size, b"\0"))
        data[4 * MIB : 4 * MIB + 65536] = b"\x4d" * 65536
        return bytes(data)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def files_of(host: Host) -> set[str]:
    return {path.name for path in (host.path / "_base").iterdir()}


# -- which image is what ----------------------------------------------------------------------------------------------


def test_a_snapshot_with_a_base_holds_only_changes() -> None:
    assert kind_of({}) == IMAGE
    assert kind_of({"base_image_id_sha1": "f" * 40}) == IMAGE
    assert kind_of({"image_type": "snapshot"}) == SNAPSHOT
    assert kind_of({"image_type": "snapshot", "base_image_id_sha1": ""}) == SNAPSHOT
    assert kind_of({"image_type": "snapshot", "base_image_id_sha1": "f" * 40}) == DELTA


@pytest.mark.parametrize(
    ("kind", "create", "resize"),
    [(IMAGE, "image", "backing file"), (SNAPSHOT, "image", "backing file"), (DELTA, "delta", "backing file")],
)
def test_what_a_root_disk_is_made_from(kind: str, create: str, resize: str) -> None:
    assert made_from(kind, disk_has_backing=False) == create
    assert made_from(kind, disk_has_backing=True) == resize


def test_a_base_is_found_by_the_sha1_of_its_id_and_by_nothing_that_an_image_says_of_itself(host: Host) -> None:
    host.catalog.add(host.path / "content.raw", "liar", "raw", properties={"image_id_sha1": "a" * 40})
    assert host.catalog.find_by_sha1(host.sha1) == host.base
    with pytest.raises(NotFound):
        host.catalog.find_by_sha1("a" * 40)


# -- an honest delta --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_1"])
def test_a_delta_is_kept_unconverted_without_its_backing_name(suffix: str, host: Host) -> None:
    record = host.snapshot(host.changes(host.sha1 + suffix))
    delta = host.deltas.fetch(record, host.catalog)
    assert delta == CachedDelta(
        path=str(host.path / "_base" / f"{names.base_name(record.id)}.delta"),
        virtual_size=8 * MIB,
        base=host.sha1,
        base_gib=1 if suffix else None,
        sha256=record.checksum[1] if record.checksum else "",
        image_id=record.id,
    )
    info = subprocess.run(
        ["qemu-img", "info", "-f", "qcow2", "--output=json", delta.path], check=True, capture_output=True
    )
    assert "backing-filename" not in json.loads(info.stdout)
    assert files_of(host) == {Path(delta.path).name, f"{Path(delta.path).name}.json"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("old_gib", [None, 1])
@pytest.mark.parametrize("wanted_gib", [1, 2])
def test_a_disk_made_of_a_delta_is_its_base_with_the_changes(
    backend: str, old_gib: int | None, wanted_gib: int, host: Host
) -> None:
    delta = host.deltas.fetch(host.snapshot(host.changes(host.sha1 + ("" if old_gib is None else "_1"))), host.catalog)
    base = host.cache.fetch(host.catalog.find_by_sha1(delta.base), host.catalog)
    old = Path(base.path) if old_gib is None else Path(host.cache.size_base(base, old_gib * GIB))
    new = Path(host.cache.size_base(base, wanted_gib * GIB)) if backend == "qcow2" else Path(base.path)
    plan = DiskPlan(host.path / "disk", host.path / "disk.tmp.op", backend, new, wanted_gib * GIB)
    for _ in range(2):
        make_disk_from_delta(plan, delta, old, QemuImg())
    info = QemuImg().info(plan.path, plan.format)
    assert (info.virtual_size, info.backing_file) == (wanted_gib * GIB, str(new) if backend == "qcow2" else None)
    subprocess.run(["qemu-img", "convert", "-f", plan.format, "-O", "raw", plan.path, host.path / "flat"], check=True)
    with (host.path / "flat").open("rb") as flat:
        assert flat.read(16 * MIB) == host.expected(16 * MIB)
    assert sorted(path.name for path in host.path.glob("disk*")) == ["disk"]


def test_a_killed_maker_of_such_a_disk_leaves_nothing_that_stands_in_the_way(host: Host) -> None:
    delta = host.deltas.fetch(host.snapshot(host.changes()), host.catalog)
    base = Path(host.cache.fetch(host.base, host.catalog).path)
    plan = DiskPlan(host.path / "disk", host.path / "disk.tmp.op", "raw", base, 8 * MIB)
    plan.staged.write_bytes(b"half")
    plan.overlay.write_bytes(b"half")
    make_disk_from_delta(plan, delta, base, QemuImg())
    assert plan.path.read_bytes() == host.expected(8 * MIB)


def test_qemu_never_sees_a_backing_name_that_came_with_an_image(host: Host) -> None:
    delta = host.deltas.fetch(host.snapshot(host.changes()), host.catalog)
    base = Path(host.cache.fetch(host.base, host.catalog).path)
    host.qemu_img.directory = host.path
    (host.path / "delta.qcow2").unlink()
    shutil.rmtree(host.path / "catalog")
    make_disk_from_delta(DiskPlan(host.path / "d", host.path / "d.tmp", "qcow2", base, GIB), delta, base, host.qemu_img)
    assert host.qemu_img.seen == {""}


def test_a_published_delta_is_inspected_each_time_and_fetched_again_when_it_was_exchanged(host: Host) -> None:
    record = host.snapshot(host.changes())
    delta = host.deltas.fetch(record, host.catalog)
    good = Path(delta.path).read_bytes()
    shutil.copy(host.path / "delta.qcow2", delta.path)  # with a backing file again
    assert host.deltas.fetch(record, host.catalog) == delta
    assert Path(delta.path).read_bytes() == good


def test_a_delta_that_is_there_is_not_fetched_again(host: Host) -> None:
    record = host.snapshot(host.changes())
    delta = host.deltas.fetch(record, host.catalog)
    shutil.rmtree(host.path / "catalog")
    assert host.deltas.fetch(record, host.catalog) == delta


def test_a_download_that_broke_off_goes_on_and_one_that_was_killed_later_starts_anew(host: Host) -> None:
    record = host.snapshot(host.changes())
    stem = host.path / "_base" / f"{names.base_name(record.id)}.delta"
    stem.parent.mkdir()
    data = (host.path / "delta.qcow2").read_bytes()
    Path(f"{stem}.part").write_bytes(data[:70000])
    Path(f"{stem}.converted").write_bytes(b"half done")
    assert sorted(host.cache.leftovers()) == [Path(f"{stem}.converted"), Path(f"{stem}.part")]
    delta = host.deltas.fetch(record, host.catalog)
    assert Path(delta.path).stat().st_size == len(data)
    assert host.cache.leftovers() == []


def test_a_delta_ages_out_with_what_is_known_of_it(host: Host) -> None:
    delta = Path(host.deltas.fetch(host.snapshot(host.changes()), host.catalog).path)
    sidecar = Path(f"{delta}.json")
    os.utime(sidecar, (0, 0))
    assert host.cache.prune({str(delta)}, 60) == []
    assert host.cache.bases() == []
    assert host.cache.prune((), 60) == [delta]
    assert files_of(host) == set()


def test_what_is_known_of_a_delta_that_is_gone_is_a_leftover(host: Host) -> None:
    delta = Path(host.deltas.fetch(host.snapshot(host.changes()), host.catalog).path)
    delta.unlink()
    assert host.cache.remove_leftovers() == [Path(f"{delta}.json")]
    assert files_of(host) == set()


# -- a hostile one ----------------------------------------------------------------------------------------------------


def patched(field: str, value: int) -> Callable[[bytearray], None]:
    offset, kind = {
        "backing_offset": (8, ">Q"),
        "backing_size": (16, ">I"),
        "size": (24, ">Q"),
        "encryption": (32, ">I"),
        "l1_offset": (40, ">Q"),
        "incompatible": (72, ">Q"),
    }[field]
    return lambda image: struct.pack_into(kind, image, offset, value)


def mapped(image: bytearray) -> None:
    """The first L2 table far outside the file."""
    (l1_offset,) = struct.unpack_from(">Q", image, 40)
    struct.pack_into(">Q", image, l1_offset, 1 << 63 | 1 << 50)


HOSTILE: dict[str, tuple[str | None, Callable[[bytearray], None], str]] = {
    "path": ("/etc/passwd", lambda image: None, "no plain name of a base"),
    "relative path": ("../../../etc/passwd", lambda image: None, "no plain name of a base"),
    "path to a base": ("/_base/" + "0" * 40, lambda image: None, "no plain name of a base"),
    "protocol": ("nbd://evil/x", lambda image: None, "no plain name of a base"),
    "json": ('json:{"driver":"file"}', lambda image: None, "no plain name of a base"),
    "size with a path": ("0" * 40 + "_1/../x", lambda image: None, "no plain name of a base"),
    "name with a line end": ("0" * 40 + "\n", lambda image: None, "no plain name of a base"),
    "size of zero": ("0" * 40 + "_0", lambda image: None, "no plain name of a base"),
    "huge size": ("0" * 40 + "_1000000", lambda image: None, "no plain name of a base"),
    "capitals": ("A" * 40, lambda image: None, "no plain name of a base"),
    "another base": ("1" * 40, lambda image: None, "which its properties deny"),
    "no backing": ("0" * 40, patched("backing_offset", 0), "it has no backing file"),
    "name outside": ("0" * 40, patched("backing_offset", 1 << 40), "outside the header"),
    "name in the fixed part": ("0" * 40, patched("backing_offset", 8), "outside the header"),
    "name across the cluster": ("0" * 40, patched("backing_offset", 65530), "outside the header"),
    "name too long": ("0" * 40, patched("backing_size", 1 << 31), "has 2147483648 bytes"),
    "name empty": ("0" * 40, patched("backing_size", 0), "has 0 bytes"),
    "data file": ("0" * 40, patched("incompatible", 4), "external data file"),
    "dirty": ("0" * 40, patched("incompatible", 1), "dirty"),
    "corrupt": ("0" * 40, patched("incompatible", 2), "corrupt"),
    "encrypted": ("0" * 40, patched("encryption", 2), "encrypted"),
    "size 2^62": ("0" * 40, patched("size", 1 << 62), "limit"),
    "L1 outside": ("0" * 40, patched("l1_offset", 1 << 55), "beyond the end"),
    "L2 outside": (None, mapped, "metadata is corrupt"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_delta_is_refused_before_qemu_sees_a_name_of_its_choice(case: str, host: Host) -> None:
    backing, change, reason = HOSTILE[case]
    path = host.changes()
    image = bytearray(path.read_bytes())
    if backing is not None:
        name = backing.encode()
        struct.pack_into(">QI", image, 8, 2048, len(name))
        image[2048 : 2048 + len(name)] = name
    change(image)
    path.write_bytes(image)
    record, source = host.unchecked(path)
    with pytest.raises(ImageRefused, match=reason):
        host.deltas.fetch(record, source)
    assert host.qemu_img.seen <= {""}
    assert files_of(host) == set()


def test_a_backing_file_that_claims_another_format_than_raw_is_refused(host: Host) -> None:
    path = host.changes()
    image = path.read_bytes()
    assert image.count(b"raw\0") >= 1
    path.write_bytes(image.replace(b"\xe2\x79\x2a\xca\0\0\0\3raw", b"\xe2\x79\x2a\xca\0\0\0\3nbd", 1))
    record, source = host.unchecked(path)
    with pytest.raises(ImageRefused, match="its backing file is not raw"):
        host.deltas.fetch(record, source)


@pytest.mark.parametrize("disk_format", ["raw", "vmdk"])
def test_changes_are_qcow2(disk_format: str, host: Host) -> None:
    record, source = host.unchecked(host.path / "content.raw")
    record = ImageRecord.from_dict(record.to_dict() | {"disk_format": disk_format})
    with pytest.raises(ImageRefused, match="not"):
        host.deltas.fetch(record, source)


def test_an_image_without_those_properties_may_still_have_no_backing_file(host: Host) -> None:
    path = host.changes()
    with pytest.raises(ImageRefused, match="it has a backing file"):
        host.catalog.add(path, "x", "qcow2")
    with pytest.raises(ImageRefused, match="it has a backing file"):
        host.snapshot(path, image_type="image")
    record, source = host.unchecked(path)
    with pytest.raises(ImageRefused, match="it has a backing file"):
        host.cache.fetch(record, source)


def test_the_catalog_takes_a_delta_only_as_what_it_is(host: Host) -> None:
    assert host.snapshot(host.changes()).virtual_size == 8 * MIB
    with pytest.raises(ImageRefused, match="content is"):
        host.snapshot(host.path / "content.raw")


def test_a_delta_whose_bytes_are_not_what_was_announced_is_not_published(host: Host) -> None:
    record, source = host.unchecked(host.changes())
    record = ImageRecord.from_dict(record.to_dict() | {"checksum": ["sha256", "0" * 64]})
    with pytest.raises(ImageUnavailable, match="checksum does not match"):
        host.deltas.fetch(record, source)
    assert files_of(host) == set()


def test_another_disk_in_its_place_is_refused(host: Host) -> None:
    delta = host.deltas.fetch(host.snapshot(host.changes()), host.catalog)
    base = Path(host.cache.fetch(host.base, host.catalog).path)
    plan = DiskPlan(host.path / "disk", host.path / "disk.tmp.op", "qcow2", base, GIB)
    plan.path.write_bytes(b"somebody's disk")
    with pytest.raises(HostStorageError, match="another disk"):
        make_disk_from_delta(plan, delta, base, QemuImg())


def test_what_is_known_of_a_delta_that_was_never_published_is_abandoned_with_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = host.snapshot(host.changes())

    def killed(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("virtflow.images.deltas.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            host.deltas.fetch(record, host.catalog)
    known = f"{names.base_name(record.id)}.delta.json"
    assert known in files_of(host)
    host.deltas.abandon(record.id)
    assert files_of(host) == set()
    host.deltas.fetch(record, host.catalog)
    host.deltas.abandon(record.id)
    assert known in files_of(host), "it is of a delta that is there"
