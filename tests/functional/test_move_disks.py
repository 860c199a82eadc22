"""Every kind of disk reaches another host: raw, whole qcow2, over a snapshot of changes; by rsync, and by ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import missing
from tests.functional.test_migrate import OFFSET, SETTINGS, directory, ended, info, instance, is_marked, mark, spawned
from virtflow.images import kinds, names
from virtflow.images.catalog import LocalCatalog
from virtflow.requests import ResizeRequest
from virtflow.testing.fleet import Fleet
from virtflow.testing.swept_images import SNAPSHOT, add_snapshot

pytestmark = [pytest.mark.must_run, pytest.mark.timeout(240)]
PATTERN = b"\x5a" * 65536


def shell(directory: Path) -> str:
    """In place of ssh a program that runs the same command on this host."""
    found = directory / "shell"
    found.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    found.chmod(0o755)
    return str(found)


@pytest.mark.parametrize(("backend", "transport"), [("raw", "ssh"), ("qcow2-flat", "rsync")])
def test_a_disk_without_a_base_is_moved_grown_and_brought_back(tmp_path: Path, backend: str, transport: str) -> None:
    if reason := missing():
        pytest.skip(reason)
    way = {"resize.transport": transport, "resize.ssh_command": shell(tmp_path)}
    with Fleet.up(**SETTINGS, **way, **{"instances.disk_backend": backend}) as fleet:
        fleet.start()
        spawned(fleet, "vm", swap_mib=4)
        old, new = directory(fleet, "h1", "vm") / "disk", directory(fleet, "h2", "vm") / "disk"
        raw = backend == "raw"
        if raw:
            with old.open("r+b") as file:
                file.seek(OFFSET)
                file.write(PATTERN)
        else:
            mark(old)
        resize = fleet.client.submit(ResizeRequest(name="vm", disk_gib=2, host="h2"))
        ended(fleet, resize)
        assert "vm" in fleet.hosts["h2"].guests()
        assert (new.stat().st_size if raw else info(new)["virtual-size"]) == 2 << 30
        assert new.stat().st_blocks * 512 < 64 << 20, "holes stay holes"
        assert holds(new, raw=raw)
        fleet.client.request_undo(resize.id)
        ended(fleet, resize, "UNDONE")
        assert "vm" in fleet.hosts["h1"].guests()
        assert holds(old, raw=raw)
        assert fleet.settle() == []


def holds(disk: Path, *, raw: bool) -> bool:
    if not raw:
        return is_marked(disk)
    with disk.open("rb") as file:
        file.seek(OFFSET)
        return file.read(len(PATTERN)) == PATTERN


def test_a_disk_over_a_snapshot_of_changes_stands_on_the_snapshots_base_over_there() -> None:
    if reason := missing():
        pytest.skip(reason)
    with Fleet.up(**SETTINGS) as fleet:
        catalog = LocalCatalog(fleet.client.config.images.catalog)
        add_snapshot(catalog)
        fleet.start()
        spawned(fleet, "vm", image=SNAPSHOT)
        old, new = directory(fleet, "h1", "vm") / "disk", directory(fleet, "h2", "vm") / "disk"
        mark(old)
        ended(fleet, fleet.client.submit(ResizeRequest(name="vm", disk_gib=2, host="h2")))
        base = catalog.get(SNAPSHOT).properties[kinds.BASE_PROPERTY]
        there = fleet.hosts["h2"].config.instances.path / "_base"
        assert Path(info(new)["backing-filename"]) == there / names.sized_name(base, 2 << 30)
        assert is_marked(new)
        assert "vm" in fleet.hosts["h2"].guests()
        used = {
            each.host
            for each in fleet.client.services["base_references"].references(consumer=instance(fleet, "vm").uuid)
        }
        assert used == {"h1", "h2"}, "it may go back"
        assert fleet.settle() == []
