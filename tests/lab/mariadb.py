"""A private MariaDB on a socket, without passwords. Needs only the server's program, not Debian's service around it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import alive, start, stop, wait_until

_SERVER = shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
_SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")
_START_SECONDS = 30
_FORGETFUL = ("--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-buffer-pool-size=32M")


def missing() -> str | None:
    """What this machine lacks for a private MariaDB, as a reason to skip; None when it has everything."""
    if _SERVER is None or not _SYSTEM_TABLES.exists():
        return "needs a MariaDB server (package mariadb-server-core)"
    return None


@dataclass(frozen=True)
class MariaDB:
    """A running server; everybody who reaches its socket may do everything."""

    directory: Path
    pid: int

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database (under a new name if none is given); its URL for SQLAlchemy."""
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return f"mariadb+pymysql://root@/{name}?unix_socket={self.directory / 'socket'}"

    def execute(self, statement: str) -> None:
        """Run one statement as root."""
        import pymysql

        connection = pymysql.connect(unix_socket=str(self.directory / "socket"), user="root")
        try:
            connection.cursor().execute(statement)
        finally:
            connection.close()


@contextmanager
def mariadb() -> Iterator[MariaDB]:
    """A server that is gone at the end of the block. Nothing is synced: only a crash of the machine loses anything."""
    directory = Path(tempfile.mkdtemp(prefix="vfmaria-"))
    try:
        _initialise(directory)
        server = _start(directory)
        try:
            yield server
        finally:
            stop(server.pid)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(directory: Path) -> None:
    (directory / "data").mkdir()
    script = "CREATE DATABASE mysql;\nUSE mysql;\n" + _SYSTEM_TABLES.read_text()
    command = [*_command(directory), "--bootstrap", "--lc-messages-dir=/usr/share/mysql"]
    subprocess.run(command, input=script, text=True, check=True, capture_output=True)


def _start(directory: Path) -> MariaDB:
    command = [*_command(directory), f"--socket={directory / 'socket'}", f"--pid-file={directory / 'pid'}"]
    server = MariaDB(directory, start([*command, "--skip-grant-tables"], directory / "log"))
    # The pid file is written when the server takes connections.
    wait_until(lambda: (directory / "pid").exists() or not alive(server.pid), _START_SECONDS)
    if not (directory / "pid").exists():
        raise RuntimeError(f"MariaDB does not start: {(directory / 'log').read_text()[-2000:]}")
    return server


def _command(directory: Path) -> list[str]:
    assert _SERVER is not None, missing()
    return [
        _SERVER,
        "--no-defaults",
        "--user=root",
        f"--datadir={directory / 'data'}",
        "--skip-networking",
        *_FORGETFUL,
    ]
