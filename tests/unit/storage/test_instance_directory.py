"""The directories of instances: whose they are, and that each step is whole or not at all."""

import os
import stat

import pytest

from virtflow.errors import HostStorageError
from virtflow.storage import instance_directory
from virtflow.storage.instance_directory import InstanceDirectories

UUID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def directories(tmp_path):
    made = InstanceDirectories(tmp_path / "state" / "instances")
    made.prepare()
    return made


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_others_may_pass_through_the_directories_but_not_list_them(directories):
    path = directories.make(UUID, "op-1")
    assert mode(path) == mode(directories.instances_path) == mode(directories.instances_path.parent) == 0o711


def test_a_directory_made_twice_by_one_operation_is_the_same_with_its_content(directories):
    (directories.make(UUID, "op-1") / "disk").write_text("data")
    assert (directories.make(UUID, "op-1") / "disk").read_text() == "data"


def test_another_operations_directory_is_neither_taken_nor_removed(directories):
    directories.make(UUID, "op-1")
    with pytest.raises(HostStorageError, match="belongs to operation op-1"):
        directories.make(UUID, "op-2")
    directories.remove(UUID, "op-2")
    assert directories.owner(UUID) == "op-1"


def test_a_directory_that_nobody_marked_is_not_ours(directories):
    directories.path(UUID).mkdir()
    with pytest.raises(HostStorageError, match="something of that name is there"):
        directories.make(UUID, "op-1")
    directories.remove(UUID, "op-1")
    assert directories.path(UUID).is_dir()


def test_removing_takes_what_was_staged_too_and_may_be_repeated(directories):
    (directories.make(UUID, "op-1") / "disk").write_text("data")
    half_made = directories.instances_path / f"{UUID}.tmp.op-1"
    half_made.mkdir()
    directories.remove(UUID, "op-1")
    directories.remove(UUID, "op-1")
    assert list(directories.instances_path.iterdir()) == []


def test_a_removal_that_was_interrupted_is_finished_by_the_next(directories, monkeypatch):
    (directories.make(UUID, "op-1") / "disk").write_text("data")

    def interrupted(_path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(instance_directory.shutil, "rmtree", interrupted)
        with pytest.raises(HostStorageError, match="Input/output error"):
            directories.remove(UUID, "op-1")
    directories.remove(UUID, "op-1")
    assert list(directories.instances_path.iterdir()) == []


def test_the_trash_keeps_everything_and_gives_it_back(directories):
    (directories.make(UUID, "op-1") / "disk").write_text("data")
    directories.trash(UUID, "op-2")
    directories.trash(UUID, "op-2")
    assert not directories.path(UUID).exists()
    directories.restore(UUID, "op-2")
    directories.restore(UUID, "op-2")
    assert (directories.path(UUID) / "disk").read_text() == "data"
    assert directories.owner(UUID) == "op-1"


def test_nothing_is_restored_over_what_is_there(directories):
    directories.make(UUID, "op-1")
    directories.trash(UUID, "op-2")
    directories.make(UUID, "op-3")
    with pytest.raises(HostStorageError, match="something of that name is there"):
        directories.restore(UUID, "op-2")
    assert directories.owner(UUID) == "op-3"


def test_what_is_purged_is_gone_and_purging_again_is_done(directories):
    directories.make(UUID, "op-1")
    directories.trash(UUID, "op-2")
    directories.purge("op-2")
    directories.purge("op-2")
    assert not directories.trash_path("op-2").exists()
