"""The worker as a service: signals, systemd's notifications and watchdog, health and metrics on loopback."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from virtflow.errors import ConfigurationError
from virtflow.worker.worker import Worker

if TYPE_CHECKING:
    from virtflow.config import Config

LOG = logging.getLogger(__name__)
_TICK = 1.0
_MORE_TIME = 30_000_000
"""Microseconds that systemd waits for a start from each sign of life on, where it would have lost patience before."""

_TO_COME_BACK = 300_000_000
"""Microseconds for which nothing is heard of a worker that starts anew: Python has to be loaded again."""


def serve(config: Config, topics: Collection[str], reload: threading.Event | None = None) -> bool:
    """Run a worker until SIGTERM or SIGINT (drain, then end). True: SIGHUP came, and it has drained to be started anew.

    The process ends with whatever a second SIGTERM cuts short as it is; what was stored is gone on with by others.
    """
    asked, anew = threading.Event(), reload or threading.Event()
    worker = Worker(config, topics)

    def end(_number: int, _frame: Any) -> None:
        if asked.is_set():
            os._exit(1)
        asked.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, lambda _number, _frame: anew.set())
    pages = _Pages(worker, config.worker.metrics_port) if config.worker.metrics_port else None
    try:
        with _saying("WATCHDOG=1", f"EXTEND_TIMEOUT_USEC={_MORE_TIME}"):
            worker.start()
        notify("READY=1", f"STATUS=host {config.host}", *_watchdog())
        while not (asked.is_set() or anew.is_set() or worker.ended.is_set()):
            asked.wait(_TICK)
            unwell = worker.unwell()
            if unwell is None:
                notify("WATCHDOG=1")
            else:
                LOG.error("%s", unwell)
        notify("RELOADING=1" if anew.is_set() else "STOPPING=1", "STATUS=draining")
    finally:
        with _saying("WATCHDOG=1"):
            worker.close()
        if pages is not None:
            pages.close()
    if anew.is_set() and not asked.is_set():
        notify(f"WATCHDOG_USEC={_TO_COME_BACK}")
        return True
    return False


def _watchdog() -> list[str]:
    """Back to the watchdog that the unit asks for, in case that the process was started anew."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    return [f"WATCHDOG_USEC={wanted}"] if wanted.isdecimal() else []


@contextmanager
def _saying(*lines: str) -> Iterator[None]:
    """While the block runs, systemd is told again and again that the worker is not stuck.

    What a host owes is cleaned up before it takes work, and tasks that run are waited for: both take as long as they
    take, and each task has a time limit of its own. How long a stop may take is for the unit to say.
    """
    over = threading.Event()

    def tell() -> None:
        while True:
            notify(*lines)
            if over.wait(_TICK):
                return

    thread = threading.Thread(target=tell, name="virtflow-systemd", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def notify(*lines: str) -> None:
    """Tell systemd, if it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), target)
        except OSError as error:
            LOG.warning("cannot notify %s: %s", address, error.strerror)


class _Pages:
    """/health and /metrics, on 127.0.0.1 only."""

    def __init__(self, worker: Worker, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                unwell = worker.unwell()
                pages = {
                    "/health": (200 if unwell is None else 503, (unwell or "ok") + "\n"),
                    "/metrics": (200, worker.metrics.text()),
                }
                status, text = pages.get(self.path, (404, "only /health and /metrics\n"))
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
                LOG.debug(format, *arguments)

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            worker.runner.close()
            reason = f"cannot listen on 127.0.0.1:{port}: {error.strerror}"
            raise ConfigurationError(group="worker", option="metrics_port", reason=reason) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="virtflow-pages", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
