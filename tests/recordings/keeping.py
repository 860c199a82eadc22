"""Recordings of each release, kept as test data: what they did then, every later version must go on doing.

``make recordings`` makes those of the version at hand (tests/functional/test_replay_live.py).
They are redacted, and without tracebacks: those name files of the machine they were made on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import virtflow
from virtflow.replay.files import SUFFIX, export
from virtflow.replay.recording import Recording, from_plain, to_plain
from virtflow.replay.redacting import redact

HERE = Path(__file__).parent


def keep(recording: Recording, name: str) -> Path:
    """Write it among those of this version, in place of an earlier one."""
    directory = HERE / ".".join(virtflow.__version__.split(".")[:2])
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}{SUFFIX}"
    export(from_plain(_without_tracebacks(to_plain(redact(recording)))), path, replace_existing=True)
    path.chmod(0o644)
    return path


def kept() -> list[Path]:
    """All that are kept, of all versions."""
    return sorted(HERE.glob(f"*/*{SUFFIX}"))


def _without_tracebacks(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: "" if name == "traceback_str" else _without_tracebacks(value) for name, value in plain.items()}
    return [_without_tracebacks(value) for value in plain] if isinstance(plain, list) else plain
