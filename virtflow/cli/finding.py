"""What a check of ``virtflow doctor`` has found."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

OK, INFO, MISSING = "ok", "info", "MISSING"


@dataclass(frozen=True)
class Finding:
    """``fix`` is the command that mends it, empty when nothing is wrong."""

    check: str
    status: str
    detail: str
    fix: str = ""


def program(check: str, names: tuple[str, ...], package: str) -> Finding:
    """Whether one of these programs is installed."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        return Finding(check, MISSING, f"{' or '.join(names)} is not installed", f"apt-get install {package}")
    return Finding(check, OK, found)
