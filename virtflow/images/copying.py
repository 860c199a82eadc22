"""Copy a file of the host's own, leaving its holes holes and sharing blocks where the file system can."""

from __future__ import annotations

from pathlib import Path

from virtflow.activity import IDLE, Activity
from virtflow.images.progress import watch_growth
from virtflow.processes import run


def copy_sparse(source: Path, target: Path, activity: Activity = IDLE) -> None:
    """Copy ``source`` over ``target``. Raises CommandFailed (cp), OSError; what was copied until then stays."""
    allocated = source.stat().st_blocks * 512
    with watch_growth(activity, target, allocated) as watching:
        run(["cp", "--sparse=always", "--reflink=auto", "--", source, target], activity=watching)
