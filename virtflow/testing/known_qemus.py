"""What libvirt has found out about the QEMUs of this machine, kept for the next host: asking them again takes 8 s.

libvirt itself checks whether it still holds.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_BELOW_CACHE = Path("qemu", "capabilities")


def tell(cache: Path) -> bool:
    """Write what is known into libvirt's ``cache`` directory. False when nothing is known yet."""
    target = cache / _BELOW_CACHE
    target.mkdir(parents=True, exist_ok=True)
    known = list(_kept().glob("*.xml"))
    for path in known:
        (target / path.name).write_bytes(path.read_bytes())
    return bool(known)


def learn(cache: Path) -> None:
    """Keep what libvirt has in its ``cache`` directory by now. Others may read and write at the same time."""
    kept = _kept()
    for path in (cache / _BELOW_CACHE).glob("*.xml"):
        found, known = path.read_bytes(), b""
        with contextlib.suppress(FileNotFoundError):
            known = (kept / path.name).read_bytes()
        if found != known:
            kept.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=kept, suffix=".tmp", delete=False) as staged:
                staged.write(found)
            Path(staged.name).replace(kept / path.name)


def _kept() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "virtflow", "lab", "capabilities")
