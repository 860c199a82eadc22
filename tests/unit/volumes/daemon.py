"""What stands for tgtd: a thread at its control socket that gives everybody the same answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from virtflow.volumes.exports import tgt_daemon

DONE = struct.pack("=II", 0, 8)


@contextmanager
def answering(
    directory: Path, monkeypatch: pytest.MonkeyPatch, control: int, answer: bytes | None = DONE
) -> Iterator[None]:
    """``None`` is never an answer."""
    monkeypatch.setattr(tgt_daemon, "_SOCKET", str(directory / "socket.{}"))
    path = directory / f"socket.{control}"

    def serve(listener: socket.socket) -> None:
        while True:
            with listener.accept()[0] as connection:
                if not connection.recv(1 << 12):
                    return
                if answer is None:
                    connection.recv(1)  # until whoever asked goes away
                else:
                    connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as threads:
        listener.bind(str(path))
        listener.listen()
        serving = threads.submit(serve, listener)
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            serving.result()
            path.unlink()
