"""What systemd, a load balancer and Prometheus are told of a worker."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from virtflow.errors import ConfigurationError
from virtflow.worker.metrics import Metrics
from virtflow.worker.service import _Pages, notify


class Worker:
    """As much of a worker as its pages ask."""

    def __init__(self) -> None:
        self.metrics = Metrics({"virtflow_runs": ("Operations and segments at work.", lambda: 3)})
        self.wrong: str | None = None
        self.closed = False
        self.runner = SimpleNamespace(close=lambda: setattr(self, "closed", True))

    def unwell(self) -> str | None:
        return self.wrong


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def port(worker: Any) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    pages = _Pages(worker, number)
    yield number
    pages.close()


def read(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_worker_is_healthy_until_something_of_it_has_ended(worker: Worker, port: int) -> None:
    assert read(port, "/health") == (200, "ok\n")
    worker.wrong = "jobs of operations are not taken any more"
    assert read(port, "/health") == (503, "jobs of operations are not taken any more\n")


def test_metrics_are_in_prometheus_text_format(worker: Worker, port: int) -> None:
    worker.metrics.claimed("operations")
    worker.metrics.settled("operations", done=True)
    status, text = read(port, "/metrics")
    assert status == 200
    assert 'virtflow_jobs_claimed_total{topic="operations"} 1\n' in text
    assert 'virtflow_jobs_settled_total{topic="operations",result="finished"} 1\n' in text
    assert "# TYPE virtflow_runs gauge\nvirtflow_runs 3\n" in text


def test_there_is_nothing_else_to_see(port: int) -> None:
    assert read(port, "/")[0] == 404


def test_a_port_that_is_taken_is_a_mistake_in_the_configuration(worker: Any, port: int) -> None:
    with pytest.raises(ConfigurationError, match=r"\[worker\] metrics_port: cannot listen on 127\.0\.0\.1"):
        _Pages(worker, port)
    assert worker.closed


def test_systemd_is_told_and_where_there_is_none_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1", "STATUS=host h1")
        assert manager.recv(1024) == b"READY=1\nSTATUS=host h1"
