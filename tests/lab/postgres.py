"""A private PostgreSQL on loopback, owned by the user ``postgres`` when we are root (it refuses to run as root)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lab.processes import alive, start, stop, wait_until

_OWNER = "postgres"
_ROLE = "virtflow"
_START_SECONDS = 30
_ATTEMPTS = 3
_FORGETFUL = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


def programs() -> Path | None:
    """The directory of the newest installed server's programs (Debian keeps them out of PATH)."""
    found = {path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")}
    in_path = shutil.which("initdb")
    if found:
        return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    return Path(in_path).parent if in_path else None


def missing() -> str | None:
    """What this machine lacks for a private PostgreSQL, as a reason to skip; None when it has everything."""
    return None if programs() else "needs a PostgreSQL server (package postgresql)"


@dataclass
class Postgres:
    """A running server. Trusts everybody on loopback."""

    port: int
    directory: Path
    pid: int
    command: Sequence[str] = ()

    def socket_url(self, url: str) -> str:
        """The same database through a UNIX socket, which is reached from every network namespace."""
        return f"postgresql+psycopg://{_ROLE}@/{url.rpartition('/')[2]}?host={self.directory}&port={self.port}"

    def crash(self) -> None:
        """All its processes end at once, and nothing is tidied up (SIGQUIT, "immediate shutdown")."""
        stop(self.pid, polite=signal.SIGQUIT)

    def start_again(self) -> None:
        """With the data and the port that it had."""
        self.pid = start(self.command, self.directory / "log", survive=True)
        if not wait_until(partial(_ready_or_dead, self), _START_SECONDS) or not alive(self.pid):
            raise RuntimeError(f"PostgreSQL does not start again: {(self.directory / 'log').read_text()[-2000:]}")

    def url(self, database: str = "postgres") -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://{_ROLE}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database (under a new name if none is given); its URL."""
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        self.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside a transaction."""
        psql = ["psql", "-q", "-X", "-h", "127.0.0.1", "-p", str(self.port), "-U", _ROLE, "-d", "postgres"]
        subprocess.run([*psql, "-v", "ON_ERROR_STOP=1", "-c", statement], check=True, capture_output=True)


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server that is gone at the end of the block.

    ``durable``: commits reach the disk, as in production and for benchmarks. Otherwise nothing is ever synced, which
    is what tests want: only a crash of the machine itself could lose anything.
    """
    directory = Path(tempfile.mkdtemp(prefix="vfpg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, _OWNER, _OWNER)
        _initialise(directory / "data", durable)
        server = _start(directory, durable)
        try:
            yield server
        finally:
            # SIGINT is PostgreSQL's "fast" shutdown: clients are disconnected.
            stop(server.pid, polite=signal.SIGINT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(data: Path, durable: bool) -> None:
    sync = [] if durable else ["--no-sync"]
    command = [_program("initdb"), "-D", str(data), "-A", "trust", "-U", _ROLE, "-E", "UTF8", "--locale=C", *sync]
    subprocess.run([*_as_owner(), *command], check=True, capture_output=True, cwd=data.parent)


def _start(directory: Path, durable: bool) -> Postgres:
    for _ in range(_ATTEMPTS):
        port = _free_port()
        settings = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={directory}"]
        settings += [] if durable else _FORGETFUL
        options = [word for setting in settings for word in ("-c", setting)]
        # setpriv inside start() would lose its "parent died" signal at the change of user; this one sets it after.
        command = [*_as_owner("--pdeathsig", "INT"), _program("postgres"), "-D", str(directory / "data"), *options]
        server = Postgres(port, directory, start(command, directory / "log", survive=True), command)
        wait_until(partial(_ready_or_dead, server), _START_SECONDS)
        if alive(server.pid):
            return server
    # Somebody may have taken the port between our look and the server's: that is why there were several attempts.
    raise RuntimeError(f"PostgreSQL does not start: {(directory / 'log').read_text()[-2000:]}")


def _ready_or_dead(server: Postgres) -> bool:
    command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(server.port)]
    return not alive(server.pid) or subprocess.run(command, check=False).returncode == 0


def _as_owner(*options: str) -> Sequence[str]:
    owner = [f"--reuid={_OWNER}", f"--regid={_OWNER}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *owner, *options, "--"] if owner or options else []


def _program(name: str) -> str:
    directory = programs()
    assert directory is not None, missing()
    return str(directory / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
