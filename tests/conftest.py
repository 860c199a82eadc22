"""For all tests: golden files, the lab's fixtures, and the rule about tests that must run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from virtflow import redaction

_TESTS = Path(__file__).resolve().parent

# tests/ is no package (import mode importlib); ``tests.lab`` is found from the project's root.
sys.path.insert(0, str(_TESTS.parent))

# How long an example takes says something about the machine only.
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = ["tests.golden", "tests.once_more", "tests.lab.fixtures", "tests.functional.fixtures_runner"]


def pytest_configure() -> None:
    """SIGTERM ends the session like Ctrl-C: fixtures still take down what they brought up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes a secret is masked in that test, not in what the next one of this process reads."""
    monkeypatch.setattr(redaction, "_known", dict(redaction._known))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true, a skipped test that is marked ``must_run`` has failed."""
    report = yield
    must_run = item.get_closest_marker("must_run") is not None
    if os.environ.get("CI") == "true" and must_run and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must run in CI, but it was skipped: {reason}"
    return report
