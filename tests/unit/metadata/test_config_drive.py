"""Writing a config drive in this process."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycdlib import PyCdlib

from virtflow.errors import ConfigDriveError
from virtflow.metadata import config_drive
from virtflow.metadata.config_drive import ConfigDriveWriter

TREE = {
    "openstack/latest/meta_data.json": b'{"admin_pass": "s3cret-word"}',
    "openstack/latest/user_data": b"",
    "openstack/content/0000": bytes(range(256)) * 20,
}


def read_back(image: Path, names: str) -> dict[str, bytes]:
    """Every file of the image by the names of one of its name spaces: "rr_path" or "joliet_path"."""
    iso, found = PyCdlib(), {}
    iso.open(str(image))
    for directory, _, files in iso.walk(**{names: "/"}):
        for name in files:
            path = f"{directory.rstrip('/')}/{name}"
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{names: path})
            found[path.removeprefix("/")] = out.getvalue()
    iso.close()
    return found


@pytest.mark.parametrize("names", ["rr_path", "joliet_path"])
def test_what_was_written_is_read_back_under_its_own_names(tmp_path: Path, names: str) -> None:
    ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    assert read_back(tmp_path / "disk.config", names) == TREE


@settings(max_examples=25)
@given(
    tree=st.dictionaries(
        st.from_regex(r"\A[a-z0-9_]{1,12}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}[a-z]){1,3}\Z"),
        st.binary(max_size=5000),
        max_size=8,
    )
)
def test_any_tree_of_plain_names_survives(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes]) -> None:
    if any(a != b and b.startswith(a + "/") for a in tree for b in tree):
        return  # one name cannot be a file and a directory
    target = tmp_path_factory.mktemp("drive") / "disk.config"
    ConfigDriveWriter().write(tree, target, "op1")
    assert read_back(target, "rr_path") == tree


def test_nobody_else_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "disk.config").stat().st_mode) == 0o600


def test_the_staged_file_is_closed_to_others_from_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int, int]] = []
    real = os.open

    def record(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        opened.append((os.path.basename(path), flags, mode))
        return real(path, flags, mode)

    monkeypatch.setattr(config_drive.os, "open", record)
    ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    name, flags, mode = opened[0]
    assert (name, mode) == ("disk.config.tmp.op1", 0o600)
    assert flags & os.O_EXCL


def test_the_same_tree_is_the_same_image_on_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ConfigDriveWriter().write(TREE, tmp_path / "first", "op1")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * 400 + 3_661)
    ConfigDriveWriter().write(dict(reversed(TREE.items())), tmp_path / "second", "op2")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_directory_of_many_sectors_is_still_the_same_image_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {f"openstack/content/{number:04d}": b"%d" % number for number in range(100)}
    ConfigDriveWriter().write(tree, tmp_path / "first", "op1")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * 400)
    ConfigDriveWriter().write(tree, tmp_path / "second", "op2")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_back(tmp_path / "first", "rr_path") == tree


def test_a_new_drive_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "disk.config"
    ConfigDriveWriter().write({"a": b"old"}, target, "op1")
    with target.open("rb") as held:
        ConfigDriveWriter().write({"a": b"new"}, target, "op2")
        assert b"old" in held.read()  # whoever has it open keeps a whole drive
    assert read_back(target, "rr_path") == {"a": b"new"}
    assert os.listdir(tmp_path) == ["disk.config"]


def test_a_staged_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk.config.tmp.op1").write_bytes(b"half")
    ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    assert os.listdir(tmp_path) == ["disk.config"]


def test_discarding_removes_what_this_operation_staged_and_nothing_else(tmp_path: Path) -> None:
    for name in ("disk.config", "disk.config.tmp.op1", "disk.config.tmp.op2"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "disk.config.tmp.op1.tree" / "openstack").mkdir(parents=True)
    for _ in range(2):
        ConfigDriveWriter().discard(tmp_path / "disk.config", "op1")
        assert sorted(os.listdir(tmp_path)) == ["disk.config", "disk.config.tmp.op2"]


def test_a_staged_name_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "disk.config.tmp.op1").symlink_to(tmp_path / "victim")
    ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    assert not (tmp_path / "disk.config").is_symlink()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_drive_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "disk.config"
    target.write_bytes(b"old drive")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(config_drive.os, call, fail)
    with pytest.raises(ConfigDriveError, match="No space left on device") as caught:
        ConfigDriveWriter().write(TREE, target, "op1")
    assert "s3cret-word" not in str(caught.value)
    assert target.read_bytes() == b"old drive"
    assert os.listdir(tmp_path) == ["disk.config"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(config_drive.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    ConfigDriveWriter().write(TREE, tmp_path / "disk.config", "op1")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a b", "x" * 65, "a/b\n", "ä", "/".join("abcdefgh")],
)
@pytest.mark.parametrize("command", [None, "genisoimage"])
def test_a_path_that_could_leave_the_tree_is_refused(tmp_path: Path, path: str, command: str | None) -> None:
    with pytest.raises(ConfigDriveError, match="cannot be a path"):
        ConfigDriveWriter(command).write({path: b""}, tmp_path / "disk.config", "op1")
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigDriveError, match="cannot build config drive: No such file or directory"):
        ConfigDriveWriter().write(TREE, tmp_path / "gone" / "disk.config", "op1")
