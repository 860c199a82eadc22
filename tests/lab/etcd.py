"""A private etcd on loopback, that does not wait for its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.servers import Server, free_port, says


def missing() -> str | None:
    """What this machine lacks, as a reason to skip; None when it has everything."""
    return None if shutil.which("etcd") else "needs an etcd server (package etcd-server)"


class Etcd(Server):
    """Ready in 0.3 s."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._peer_port = free_port()

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self._peer_port}"
        addresses = ["--listen-client-urls", client, "--advertise-client-urls", client]
        addresses += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        cluster = ["--name", "lab", "--initial-cluster", f"lab={peer}"]
        quick = ["--log-level", "error", "--unsafe-no-fsync"]
        return ["etcd", *cluster, "--data-dir", str(self.data / "etcd"), *addresses, *quick]

    def answers(self) -> bool:
        return says(self.port, b"GET /health HTTP/1.0\r\n\r\n", b"HTTP/1.0 200") or says(
            self.port, b"GET /health HTTP/1.1\r\nHost: etcd\r\n\r\n", b"HTTP/1.1 200"
        )
