"""What libvirt knows about the QEMUs of the machine is handed from host to host."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.testing import known_qemus

KEPT = Path("virtflow/lab/capabilities")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def cache(path: Path, **found: str) -> Path:
    """libvirt's cache directory, as libvirt has filled it."""
    for name, text in found.items():
        file = path / "qemu" / "capabilities" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def told(path: Path) -> dict[str, str]:
    known_qemus.tell(path)
    return {file.stem: file.read_text() for file in (path / "qemu" / "capabilities").iterdir()}


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert not known_qemus.tell(tmp_path / "new")
    assert told(tmp_path / "new") == {}


def test_what_one_host_has_found_out_the_next_one_is_told(tmp_path: Path) -> None:
    known_qemus.learn(cache(tmp_path / "first", x86_64="asked"))
    assert known_qemus.tell(tmp_path / "second")
    assert told(tmp_path / "second") == {"x86_64": "asked"}


def test_what_is_found_out_later_is_added_and_what_has_changed_is_replaced(tmp_path: Path) -> None:
    known_qemus.learn(cache(tmp_path / "first", x86_64="asked"))
    known_qemus.learn(cache(tmp_path / "second", x86_64="upgraded", i386="asked"))
    assert told(tmp_path / "third") == {"x86_64": "upgraded", "i386": "asked"}


def test_a_file_that_is_half_written_is_told_to_nobody(tmp_path: Path, home: Path) -> None:
    known_qemus.learn(cache(tmp_path / "first", x86_64="asked"))
    (home / KEPT / "half.tmp").write_text("a")
    assert told(tmp_path / "second") == {"x86_64": "asked"}
    assert sorted(path.name for path in (home / KEPT).iterdir()) == ["half.tmp", "x86_64.xml"]
