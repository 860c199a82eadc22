"""Real Glance from PyPI in a virtualenv of its own, on loopback, with a file store, SQLite and no Keystone.

Glance has no server of its own any more (its ``glance-api`` only says so), so the application runs under waitress. Its
dependencies would not agree with ours, hence the virtualenv, which is kept in a cache directory and used again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.processes import alive, start, stop, wait_until
from virtflow.files.lock import hold

REQUIREMENTS = ("glance==33.0.0", "waitress>=3,<4", "setuptools<81")
_START_SECONDS = 60
_ATTEMPTS = 3

_CONFIG = """\
[DEFAULT]
enabled_backends = files:file
worker_self_reference_url = http://127.0.0.1:{port}
log_file = {directory}/api.log
[database]
connection = sqlite:///{directory}/glance.sqlite
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = {directory}/images
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[paste_deploy]
flavor =
config_file = {environment}/etc/glance/glance-api-paste.ini
[image_format]
require_image_format_match = False
[oslo_policy]
enforce_scope = False
enforce_new_defaults = False
policy_file = {directory}/policy.yaml
[oslo_concurrency]
lock_path = {directory}/lock
"""


class GlanceMissing(Exception):
    """Glance cannot be had here; the text is a reason to skip."""


@dataclass(frozen=True)
class Glance:
    """A running Glance that takes everybody for an administrator, and any data for the format it is declared as."""

    endpoint: str
    directory: Path
    pid: int

    def upload(self, file: Path, name: str, disk_format: str, **fields: Any) -> str:
        """Create an image and upload its data; returns its id. ``fields``: min_disk, min_ram, properties."""
        image_id = self.create(name, disk_format, **fields)
        with file.open("rb") as data:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
            self._request("PUT", f"/v2/images/{image_id}/file", data, headers)
        return image_id

    def create(self, name: str, disk_format: str, **fields: Any) -> str:
        """Create an image without data (status ``queued``); returns its id."""
        body = {"name": name, "disk_format": disk_format, "container_format": "bare", **fields}
        headers = {"Content-Type": "application/json"}
        return str(json.loads(self._request("POST", "/v2/images", json.dumps(body).encode(), headers))["id"])

    def delete(self, image_id: str) -> None:
        self._request("DELETE", f"/v2/images/{image_id}")

    def stored(self, image_id: str) -> Path:
        """The file in which the store keeps the image: to damage it."""
        return self.directory / "images" / image_id

    def log(self) -> str:
        return (self.directory / "api.log").read_text(errors="replace")

    def _request(self, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None) -> bytes:
        request = urllib.request.Request(self.endpoint + path, data, headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
        return content


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/virtflow/glance``, by default below ``~/.cache``: next to the built guests."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "virtflow", "glance")


def install(cache: Path) -> Path:
    """The virtualenv with Glance, made in ``cache`` unless it is there. Raises GlanceMissing."""
    digest = hashlib.sha256(repr((REQUIREMENTS, sys.version_info[:2])).encode()).hexdigest()[:12]
    environment = cache / f"glance-{digest}"
    complete = environment / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with hold(cache / f"glance-{digest}.lock"):
        if not complete.exists():
            shutil.rmtree(environment, ignore_errors=True)
            venv.create(environment, with_pip=True)
            _run([environment / "bin/python", "-m", "pip", "install", "-q", *REQUIREMENTS])
            complete.touch()
    return environment


@contextmanager
def glance(cache: Path, directory: Path | None = None) -> Iterator[Glance]:
    """A Glance of one's own, stopped at the end; its data is in ``directory``, or in a temporary one."""
    environment = install(cache)
    with tempfile.TemporaryDirectory(prefix="vf-glance-") as temporary:
        place = directory or Path(temporary)
        for name in ("images", "staging", "tasks", "lock"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "policy.yaml").touch()
        running = _start(environment, place)
        try:
            yield running
        finally:
            stop(running.pid)


def _start(environment: Path, directory: Path) -> Glance:
    for attempt in range(_ATTEMPTS):
        port = _free_port()
        config = _CONFIG.format(port=port, directory=directory, environment=environment)
        (directory / "glance-api.conf").write_text(config)
        if attempt == 0:
            _run([environment / "bin/glance-manage", "--config-file", directory / "glance-api.conf", "db_sync"])
        # Another process may take the port between the look and the use; then the server ends, and we look again.
        pid = start(
            [
                *("env", f"OS_GLANCE_CONFIG_DIR={directory}", str(environment / "bin/waitress-serve")),
                *(f"--listen=127.0.0.1:{port}", "--threads=16", "glance.wsgi.api:application"),
            ],
            directory / "server.log",
        )
        server = Glance(f"http://127.0.0.1:{port}", directory, pid)
        wait_until(partial(_settled, server), _START_SECONDS, 0.1)
        if alive(pid) and _answers(server.endpoint):
            return server
        stop(pid)
    tail = (directory / "server.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"Glance does not start: {tail}")


def _settled(server: Glance) -> bool:
    return not alive(server.pid) or _answers(server.endpoint)


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/v2/images", timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(argv: Sequence[Path | str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("WARNING")]
        raise GlanceMissing(f"needs Glance ({' '.join(REQUIREMENTS)}): {' '.join(lines[-3:])[-300:]}")
