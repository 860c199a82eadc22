"""The rule that CI does not pass over a test that must run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TESTS = """\
import pytest

@pytest.fixture
def lacking():
    pytest.skip("needs an elephant")

@pytest.mark.must_run
def test_essential(lacking):
    pass

def test_optional(lacking):
    pass
"""


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skipped_test_that_must_run_fails_the_session_in_ci_only_and_is_named(
    tmp_path: Path, ci: str, status: int
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = must_run: x\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-rfs", str(tmp_path)]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    session = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert session.returncode == status, session.stdout
    assert "1 skipped" in session.stdout or not ci
    assert ("test_essential must run in CI, but it was skipped: " in session.stdout) is bool(ci)
    assert "needs an elephant" in session.stdout
