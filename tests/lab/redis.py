"""A private Redis on loopback. What it was told survives a kill of the process, as with a durable one.

It appends to its file without syncing, which only a crash of the machine could tell.
"""

from __future__ import annotations

import shutil

from tests.lab.servers import Server, says


def missing() -> str | None:
    """What this machine lacks, as a reason to skip; None when it has everything."""
    return None if shutil.which("redis-server") else "needs a Redis server (package redis-server)"


class Redis(Server):
    """Ready in 0.03 s."""

    name = "Redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        # What is appended survives a kill of the process without being synced.
        settings = ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--daemonize", "no"]
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), *settings]

    def answers(self) -> bool:
        return says(self.port, b"PING\r\n", b"+PONG")
