"""Test modules that run in the appliance, and what became of their tests."""

from __future__ import annotations

import compileall
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

_TOP = Path(__file__).parent.parent.parent
_INSIDE = _TOP / "tests" / "functional" / "inside"


def compile_here() -> None:
    """What Python would have to compile in there, each time and slowly: nothing in there writes to the checkout."""
    compileall.compile_dir(_TOP / "virtflow", quiet=1)


def command(name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """Words that run pytest in there. ``arguments``: modules of ``inside/``, and options. ``outcomes`` has its name."""
    # Python is slow in there: no plugin that the suites do not need.
    settings = {"PYTHONPATH": str(_TOP), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(environment or {})}
    surroundings = ["-c", str(_TOP / "pyproject.toml"), "--rootdir", str(_TOP), "--noconftest"]
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout", "-o", "timeout=0"]
    plugins += ["-p", "tests.functional.inside.iscsi_host"]
    left = [f"--basetemp=/run/{name}", f"--junitxml=/run/share/{name}.xml", "--durations=5"]
    words = [str(_INSIDE / word) if word.endswith(".py") else word for word in arguments]
    start = ["env", *(f"{key}={value}" for key, value in settings.items()), sys.executable, "-B", "-m", "pytest"]
    return [*start, *surroundings, *plugins, *left, *words]


def outcomes(share: Path, name: str) -> dict[str, str]:
    """What became of each test, by its name: empty when it passed."""
    report = share / f"{name}.xml"
    assert report.exists(), (share / f"{name}.log").read_text()[-3000:]
    found = {
        str(case.get("name")): "".join(
            f"{child.tag}: {child.get('message')}\n{child.text}"[-3000:]
            for child in case
            if child.tag in ("failure", "error", "skipped")
        )
        for case in ElementTree.parse(report).iter("testcase")
    }
    assert found, (share / f"{name}.log").read_text()[-3000:]
    return found
