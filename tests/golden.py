"""Golden files: what a builder made once, looked at and checked in. ``pytest --regenerate`` writes them anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write golden files anew instead of comparing with them")


@pytest.fixture
def same_as_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``same_as_golden(name, text)`` compares with ``golden/<name>`` beside the test; a missing file fails."""

    def compare(name: str, text: str) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("--regenerate"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if not path.exists():
            pytest.fail(f"{path} is missing: look at what was made and check it in (pytest --regenerate)")
        assert text == path.read_text(encoding="utf-8")

    return compare
