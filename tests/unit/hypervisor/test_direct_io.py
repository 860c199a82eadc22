from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from virtflow.errors import HostStorageError
from virtflow.hypervisor.direct_io import supports_direct_io


def refuse_direct(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **keywords: object) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, mode, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)


def test_a_file_system_that_takes_direct_io_is_recognised_and_left_as_it_was(tmp_path: Path) -> None:
    with (tmp_path / "probe").open("wb") as probe:
        try:
            os.close(os.open(probe.name, os.O_RDWR | os.O_DIRECT))
            expected = True
        except OSError:
            expected = False
    assert supports_direct_io(tmp_path) is expected
    assert [path.name for path in tmp_path.iterdir()] == ["probe"]


def test_a_file_system_that_refuses_direct_io_is_recognised_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_direct(monkeypatch, errno.EINVAL)
    assert supports_direct_io(tmp_path) is False
    assert list(tmp_path.iterdir()) == []


def test_another_error_is_not_taken_for_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_direct(monkeypatch, errno.EIO)
    with pytest.raises(HostStorageError, match="Input/output error"):
        supports_direct_io(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostStorageError, match="nowhere"):
        supports_direct_io(tmp_path / "nowhere")
