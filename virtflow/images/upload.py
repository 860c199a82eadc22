"""A file on its way to an image service: read in chunks, with progress and cancel."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from virtflow.activity import Activity
from virtflow.images.sparse import CHUNK


class Upload:
    """What HTTP clients take for a file. Raises OSError, and what ``activity`` stops with."""

    def __init__(self, path: Path, activity: Activity) -> None:
        self._file = path.open("rb", buffering=0)
        self._activity = activity
        self._done = 0
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, all that is left when negative."""
        self._activity.check()
        chunk = self._file.read(size)
        self._done += len(chunk)
        self._activity.report(self._done, self.size)
        return chunk

    def __len__(self) -> int:
        return self.size

    def digest(self, algorithm: str) -> str:
        """Of the whole file, in hex. ValueError for an algorithm that Python does not know."""
        found = hashlib.new(algorithm, usedforsecurity=False)
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._activity.check()
            found.update(chunk)
        return found.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
