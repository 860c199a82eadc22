"""The directory in which disks arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.errors import HostStorageError
from virtflow.storage.incoming import IncomingDirectories
from virtflow.storage.instance_directory import InstanceDirectories

UUID, OPERATION = "7d3f2c1a-0000-4000-8000-000000000001", "9e8d7c6b-0000-4000-8000-000000000002"


def test_it_becomes_the_instances_own_and_back_in_one_rename_however_often(tmp_path: Path) -> None:
    incoming, directories = IncomingDirectories(tmp_path), InstanceDirectories(tmp_path)
    for _ in range(2):
        path = incoming.make(UUID, OPERATION, replaces=False)
    (path / "disk").write_text("arrived")
    for _ in range(2):
        assert (incoming.publish(UUID, OPERATION) / "disk").read_text() == "arrived"
    assert directories.owner(UUID) == OPERATION
    for _ in range(2):
        incoming.withdraw(UUID, OPERATION)
    assert (path / "disk").read_text() == "arrived"
    for _ in range(2):
        incoming.remove(UUID, OPERATION)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_ours_is_refused_and_survives(tmp_path: Path) -> None:
    incoming = IncomingDirectories(tmp_path)
    (tmp_path / UUID).mkdir()
    (tmp_path / UUID / "precious").touch()
    with pytest.raises(HostStorageError, match="something of that name"):
        incoming.make(UUID, OPERATION, replaces=False)
    incoming.make(UUID, OPERATION, replaces=True)
    with pytest.raises(HostStorageError, match="something of that name"):
        incoming.publish(UUID, OPERATION)
    incoming.withdraw(UUID, OPERATION)
    incoming.remove(UUID, OPERATION)
    assert (tmp_path / UUID / "precious").exists()
