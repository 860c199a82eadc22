"""A libvirt host to spawn on: a real libvirtd in namespaces of its own, from the lab."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.hosts import Lab, LabHost, missing
from virtflow.testing import known_qemus

_ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def lab_host() -> Iterator[LabHost]:
    """One host, gone at the end of the block. RuntimeError: this machine cannot have one."""
    if reason := missing():
        raise RuntimeError(reason)
    directory = tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp")
    with directory as name, Lab.up(Path(name, "lab"), hosts=1) as lab:
        yield lab.hosts[0]


def on_host(host: LabHost, module: str, *arguments: object, embedded: bool = False) -> Any:
    """Run ``python -m MODULE URI DIRECTORY ARGUMENTS...`` in the host's network; the JSON that it prints.

    ``embedded``: not with the host's libvirtd, but with libvirt's driver within that process.
    """
    with tempfile.TemporaryDirectory(prefix="vfb-", dir="/var/tmp") as directory:
        uri = _embedded(Path(directory, "embed")) if embedded else host.local_uri
        command = [sys.executable, "-m", module, uri, directory, *map(str, arguments)]
        return json.loads(_output(host.argv(command)))


def _embedded(root: Path) -> str:
    known_qemus.tell(root / "cache")
    return f"qemu:///embed?root={root}"


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
