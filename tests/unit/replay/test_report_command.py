"""``virtflow replay html``, from exported files: no database is opened."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.replay import report_recordings as stories
from virtflow.cli.main import Virtflow
from virtflow.replay.files import export
from virtflow.replay.recording import Recording
from virtflow.replay.redacting import redact


def html(tmp_path: Path, *argv: str) -> tuple[int, str]:
    out = io.StringIO()
    code = Virtflow(out, out).run(["--state-dir", str(tmp_path / "state"), "replay", "html", *argv])
    return code, out.getvalue()


def exported(path: Path, recording: Recording) -> str:
    export(redact(recording), path)
    return str(path)


@pytest.fixture
def failed(tmp_path: Path) -> str:
    return exported(tmp_path / "failed.vfrec", stories.failed())


def test_an_exported_file_becomes_a_report_without_a_database(tmp_path: Path, failed: str) -> None:
    target = tmp_path / "report.html"
    code, said = html(tmp_path, failed, "-o", str(target))
    assert (code, said) == (0, f"{target}: {-(-target.stat().st_size // 1000)} kB\n")
    assert stories.CAUSE in target.read_text()
    assert not (tmp_path / "state").exists()


def test_a_report_replaces_nothing_unless_it_is_told_to(tmp_path: Path, failed: str) -> None:
    target = tmp_path / "report.html"
    target.write_text("mine")
    code, said = html(tmp_path, failed, "-o", str(target))
    assert code != 0
    assert "exists already" in said
    assert target.read_text() == "mine"
    assert html(tmp_path, failed, "-o", str(target), "--force")[0] == 0


def test_what_a_foreign_file_has_not_masked_is_masked(tmp_path: Path) -> None:
    recording = stories.failed()
    request = {"name": "web1", "admin_password": "swordfish-77"}
    careless = replace(recording, operation=replace(recording.operation, request=request))
    export(careless, tmp_path / "careless.vfrec")
    target = tmp_path / "report.html"
    assert html(tmp_path, str(tmp_path / "careless.vfrec"), "-o", str(target))[0] == 0
    assert "swordfish-77" not in target.read_text()


def test_another_file_gives_its_xml_to_compare_with(tmp_path: Path, failed: str) -> None:
    good = exported(tmp_path / "good.vfrec", stories.success())
    target = tmp_path / "report.html"
    assert html(tmp_path, failed, "--against", good, "-o", str(target))[0] == 0
    assert "operation 41: BuildDomainXml" in target.read_text()


def test_a_file_that_is_no_recording_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cat.vfrec").write_bytes(b"meow")
    code, said = html(tmp_path, str(tmp_path / "cat.vfrec"), "-o", str(tmp_path / "report.html"))
    assert code == 2
    assert said.count("\n") == 1
    assert "cannot read recording" in said
