"""Databases to measure on, on a real disk: nothing here is in memory, and everything syncs."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.lab import postgres

_DISK = Path("/var/tmp")  # survives reboots by definition, so no tmpfs


@dataclass(frozen=True)
class Databases:
    """Makes empty databases. ``kinds`` are those that this machine can run."""

    directory: Path
    server: postgres.Postgres | None

    @property
    def kinds(self) -> list[str]:
        return ["SQLite", *(["PostgreSQL"] if self.server else [])]

    def fresh(self, kind: str) -> str:
        """The URL of an empty database."""
        if kind == "SQLite":
            return f"sqlite:///{self.directory}/{uuid.uuid4().hex}.db"
        assert self.server is not None
        return self.server.create_database()


@contextmanager
def databases(env: Mapping[str, str] | None = None) -> Iterator[Databases]:
    """A directory and a private PostgreSQL with fsync on (if it is installed), gone at the end of the block.

    ``env`` is added to the server's environment.
    """
    with tempfile.TemporaryDirectory(prefix="vfbench-", dir=_DISK) as directory:
        if postgres.missing():
            yield Databases(Path(directory), None)
            return
        with mock.patch.dict(os.environ, {"TMPDIR": str(_DISK), **(env or {})}), _no_cached_tempdir():
            server = postgres.postgres(durable=True)
            running = server.__enter__()
        try:
            yield Databases(Path(directory), running)
        finally:
            server.__exit__(None, None, None)


@contextmanager
def _no_cached_tempdir() -> Iterator[None]:
    with mock.patch.object(tempfile, "tempdir", None):
        yield
