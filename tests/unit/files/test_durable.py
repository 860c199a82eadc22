"""Files are whole under their final name, or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from virtflow.errors import HostStorageError
from virtflow.files import durable
from virtflow.files.durable import PRIVATE, SHARED, publish, remove_files, write_new, write_private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("wanted", [PRIVATE, SHARED])
def test_a_published_file_has_the_mode_asked_for_and_nothing_is_left_beside_it(tmp_path: Path, wanted: int) -> None:
    staged, final = tmp_path / "disk.tmp.op-1", tmp_path / "disk"
    staged.write_text("data")
    staged.chmod(0o640)
    publish(staged, final, wanted)
    assert mode(final) == wanted
    assert list(tmp_path.iterdir()) == [final]


def test_the_content_is_durable_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(durable.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    (tmp_path / "staged").write_text("data")
    publish(tmp_path / "staged", tmp_path / "final", SHARED)
    assert calls == ["fsync", "replace", "fsync"]


def test_a_link_is_never_published(tmp_path: Path) -> None:
    (tmp_path / "staged").symlink_to("/etc/passwd")
    with pytest.raises(HostStorageError, match="cannot publish"):
        publish(tmp_path / "staged", tmp_path / "final", SHARED)
    assert not (tmp_path / "final").exists()


def test_a_new_file_is_written_in_place_of_a_link_never_through_it(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("untouched")
    (tmp_path / "new").symlink_to(tmp_path / "other")
    write_new(tmp_path / "new", b"data")
    assert (tmp_path / "other").read_text() == "untouched"
    assert (tmp_path / "new").read_bytes() == b"data"
    assert mode(tmp_path / "new") == 0o600


def test_a_private_file_replaces_the_one_before_and_what_was_staged(tmp_path: Path) -> None:
    target = tmp_path / "libvirt.xml"
    (tmp_path / "libvirt.xml.tmp.op-1").write_text("half")
    write_private(target, "first", "op-1")
    write_private(target, "second", "op-1")
    assert target.read_text() == "second"
    assert mode(target) == 0o600
    remove_files(target, tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
