"""The rule that CI runs what has failed once more, and does not hide it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.once_more import MOST

ROOT = Path(__file__).resolve().parents[3]
TESTS = """\
from pathlib import Path

import pytest

def times(name):
    path = Path(__file__).with_name(name)
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return len(path.read_text())

@pytest.fixture(scope="module")
def place():
    yield times("place")
    times("taken down")

def test_that_never_fails():
    assert times("good") == 1

def test_that_fails_once(place):
    assert times("once") == 2, "a busy machine"
"""
NEVER_PASSES = '\ndef test_that_always_fails():\n    assert times("always") == 0, "a mistake"\n'
NO_PLACE = (
    '\n@pytest.fixture\ndef rare():\n    assert times("rare") == 2\n\ndef test_of_a_rare_place(rare):\n    pass\n'
)
MANY = '\n@pytest.mark.parametrize("number", range({}))\ndef test_many(number):\n    assert times(str(number)) == 2\n'


def session(directory: Path, text: str, *options: str, ci: str = "true") -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(text)
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.once_more", *options, "test_it.py"]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "side by side"])
def test_what_passes_the_second_time_is_counted_and_its_failure_is_told(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = session(tmp_path, TESTS, *options)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 rerun" in done.stdout.splitlines()[-1]
    assert "a busy machine" in done.stdout
    assert (tmp_path / "place").read_text() == "xx", "with a place of its own"
    assert (tmp_path / "taken down").read_text() == "xx"
    assert (tmp_path / "good").read_text() == "x"


def test_a_place_that_could_not_be_made_is_tried_once_more(tmp_path: Path) -> None:
    done = session(tmp_path, TESTS + NO_PLACE)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 2 rerun" in done.stdout.splitlines()[-1]


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    done = session(tmp_path, TESTS + NEVER_PASSES)
    assert done.returncode == 1
    assert "2 failed, 1 passed" in done.stdout.splitlines()[-1]
    assert (tmp_path / "always").read_text() == "xx"


def test_many_failures_are_no_chance(tmp_path: Path) -> None:
    done = session(tmp_path, TESTS + MANY.format(MOST))
    assert done.returncode == 1
    assert f"{MOST + 1} failed" in done.stdout.splitlines()[-1]
    assert (tmp_path / "once").read_text() == "x"


def test_a_developer_sees_a_failure_at_once(tmp_path: Path) -> None:
    done = session(tmp_path, TESTS, ci="")
    assert done.returncode == 1
    assert (tmp_path / "once").read_text() == "x"
