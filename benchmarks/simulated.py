"""Operations whose tasks only sleep, as many as a spawn has; choice, claim and handing over are the real ones."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from virtflow import eventletless  # noqa: F401

from taskflow.flow import Flow  # isort: skip
from taskflow.patterns import linear_flow

from virtflow.config import Config, load
from virtflow.flows.kind import FlowKind, operation_inputs
from virtflow.flows.registry import Registry
from virtflow.persistence.operations import Operation
from virtflow.tasks.accept import Accept
from virtflow.tasks.base import Task
from virtflow.tasks.placement import ClaimHost
from virtflow.tasks.scheduling import NextHost, SelectHost
from virtflow.tasks.segments import OnHost

_BEFORE = ("ValidateRequest", "ReserveQuota", "CreateInstanceEntry", "NotifyStart", "StashSecrets")
_AFTER = ("CommitQuota", "FinishInstance", "PurgeSecrets", "NotifyEnd")
_ON_HOST = (
    *("MakeInstanceDir", "FetchBase", "SizeBase", "CreateCowOverlay", "AllocatePorts", "PlugVifs"),
    *("BuildConfigDrive", "BuildDomainXml", "DefineDomain", "StartDomain", "WaitRunning"),
)
SPEC: Mapping[str, Any] = {
    "name": "vm",
    "vcpus": 1,
    "memory_mib": 256,
    "claimed_disk_gib": 1,
    "host": None,
    "zone": None,
    "server_group": None,
    "host_wanted": {},
    "image": {"properties": {}},
}


class Sleep(Task):
    """Takes a while. Nothing to revert."""

    timeout = 0.0

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(name)
        self._seconds = seconds

    def execute(self) -> None:
        time.sleep(self._seconds)

    def revert(self, **_kwargs: Any) -> None:
        """Nothing was made."""


@dataclass(frozen=True)
class Simulated:
    """A request. ``kind`` is ``noop`` (one task), ``remote`` (one task on a host) or ``placed`` (like a spawn)."""

    kind: str
    name: str
    host: str | None = None

    def to_plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def target(self) -> str:
        return f"instance:{self.name}"

    def secrets(self) -> dict[str, bytes]:
        return {}


def registry(seconds: float = 0.0, *, first: float = 0.0) -> Registry:
    """``seconds`` is what a segment's tasks take together, ``first`` what the only task of ``noop`` takes."""
    each = seconds / len(_ON_HOST)

    def noop(_shape: object) -> Flow:
        return linear_flow.Flow("noop").add(Accept(), Sleep("First", first))

    def remote(_shape: object) -> Flow:
        on_host = OnHost("remote.host", name="OnHost", requires=(), provides=())
        return linear_flow.Flow("remote").add(Accept(), on_host)

    def remote_host(_shape: object) -> Flow:
        return linear_flow.Flow("remote.host").add(Sleep("First"))

    def placed(_shape: object) -> Flow:
        on_host = OnHost(
            "placed.host", name="SpawnOnHost", requires=("instance_uuid",), provides=(), guards=("StartDomain",)
        )
        return linear_flow.Flow("placed").add(
            *(Sleep(name) for name in _BEFORE),
            Accept(),
            linear_flow.Flow("build", retry=NextHost()).add(SelectHost(), ClaimHost(), on_host),
            *(Sleep(name) for name in _AFTER),
        )

    def placed_host(_shape: object) -> Flow:
        return linear_flow.Flow("placed.host").add(*(Sleep(name, each) for name in _ON_HOST))

    return Registry(
        (
            FlowKind("noop", 1, noop),
            FlowKind("remote", 1, remote, inputs=_with_host),
            FlowKind("remote.host", 1, remote_host),
            FlowKind("placed", 1, placed, inputs=_with_spec),
            FlowKind("placed.host", 1, placed_host),
        )
    )


def configuration(url: str, directory: str, host: str, **options: Any) -> Config:
    """Of a simulated host. ``options`` with two underscores between group and name."""
    overrides = {"database.url": url, "state_dir": directory, "host": host, "libvirt.virt_type": "qemu"}
    overrides["engine.mode"] = "workers"  # or the one who decides would count as a host too
    return load(overrides=overrides | {name.replace("__", "."): value for name, value in options.items()}, env={})


def options(words: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` each, for ``configuration``."""
    return dict(word.split("=", 1) for word in words)


def _with_host(operation: Operation) -> dict[str, Any]:
    return operation_inputs(operation) | {"host": operation.request["host"]}


def _with_spec(operation: Operation) -> dict[str, Any]:
    instance = str(uuid.uuid5(uuid.UUID(operation.id), "instance"))
    return operation_inputs(operation) | {
        "instance_uuid": instance,
        "spec": {**SPEC, "name": operation.request["name"]},
    }
