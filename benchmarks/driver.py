"""What the driver adds to libvirt's own calls: a definition checked and read back, and a domain's state."""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.table import Target, show, show_targets
from virtflow.hypervisor.connection import open_connection
from virtflow.hypervisor.domain_xml import DomainSpec, build
from virtflow.hypervisor.hypervisor import Hypervisor

URI = "qemu:///embed"


def driver(rounds: int) -> list[Target]:
    """In milliseconds, on libvirt's embedded driver."""
    from virtflow.hypervisor.binding import libvirt

    with tempfile.TemporaryDirectory(prefix="vfb-") as name:
        root = Path(name)
        hypervisor = Hypervisor(URI, root)
        hypervisor.capabilities()
        spec = _guest(root)
        xml = build(spec)
        hypervisor.define(xml)
        connection = open_connection(URI, embed_root=root)
        ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "define": (
                lambda: connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE),
                lambda: hypervisor.define(xml),
            ),
            "state": (
                lambda: connection.lookupByUUIDString(spec.uuid).state(),
                lambda: hypervisor.state(spec.uuid),
            ),
        }
        found = {call: tuple(_milliseconds(way, 3 * rounds) for way in both) for call, both in ways.items()}
        hypervisor.undefine(spec.uuid)
        hypervisor.close()
    rows = [(call, f"{bare:.2f}", f"{ours:.2f}") for call, (bare, ours) in found.items()]
    show("The driver", ("call", "libvirt, ms", "virtflow, ms"), rows)
    targets = [
        Target(f"ms that the driver adds to libvirt's {call}", ours - bare, 5, most=True)
        for call, (bare, ours) in found.items()
    ]
    show_targets(targets)
    return targets


def _guest(root: Path) -> DomainSpec:
    return DomainSpec(
        uuid=str(uuid.uuid4()),
        name="benchmark",
        operation=str(uuid.uuid4()),
        host="benchmark",
        virt_type="qemu",
        machine="q35",
        vcpus=1,
        memory_mib=32,
        console_log=str(root / "console.log"),
        tcg_cache_mib=8,
    )


def _milliseconds(call: Callable[[], object], times: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1000

    return statistics.median(once() for _ in range(times))
