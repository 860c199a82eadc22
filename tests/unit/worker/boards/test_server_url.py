"""URLs of servers that job boards are on."""

from __future__ import annotations

from typing import Any

import pytest

from virtflow.config import load
from virtflow.errors import ConfigurationError
from virtflow.worker.boards.opening import open_board
from virtflow.worker.boards.server_url import credentials_of, hosts_of, without_password


def test_hosts_have_their_own_port_or_the_usual_one() -> None:
    assert hosts_of("zookeeper://a,b:99,[::1]:7/x", 2181) == [("a", 2181), ("b", 99), ("::1", 7)]


def test_a_password_is_taken_apart_and_never_shown() -> None:
    url = "redis://me:p%40ss@host:1/0?password=other"
    assert credentials_of(url) == ("me", "p@ss")
    assert credentials_of("redis://host:1") is None
    assert without_password(url) == "redis://host:1/0"


@pytest.mark.parametrize(
    ("backend", "url", "reason"),
    [
        ("redis", None, "this board needs one, such as redis://host:6379/0"),
        ("redis", "etcd://host", "this board wants one such as redis://host:6379/0"),
        ("redis", "redis://host:port/0", "[Pp]ort"),
        ("zookeeper", None, "this board needs one, such as zookeeper://host1:2181,host2:2181"),
        ("zookeeper", "zookeeper://host:port", "[Pp]ort"),
        ("zookeeper", "zookeeper://", "it names no host"),
        ("etcd", None, "this board needs one, such as etcd://host:2379"),
        ("etcd", "etcd://host:99999", "[Pp]ort"),
        ("etcd", "etcd://me:secret-word@host", "known by certificates"),
    ],
)
def test_a_url_that_is_none_names_the_option(backend: str, url: str | None, reason: str, tmp_path: Any) -> None:
    overrides = {"state_dir": str(tmp_path), "jobboard.backend": backend} | ({"jobboard.url": url} if url else {})
    with pytest.raises(ConfigurationError, match=rf"option \[jobboard\] url: .*{reason}") as caught:
        open_board(load(overrides=overrides, env={}), None)  # type: ignore[arg-type]
    assert "secret-word" not in str(caught.value)
