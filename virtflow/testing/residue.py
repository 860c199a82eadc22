"""What virtflow has left in the world, as a snapshot to compare with another: files, domains, links, rows, processes.

    before = Residue.take(config)
    ...
    assert before.difference(Residue.take(config)) == []

History (operations, flows, journal, ledger, rows of what was purged) and caches (published bases, locks, what is known
of hosts) are not residue. Taps and bridges are looked at in the network namespace of the calling thread, and only those
that an operation of this database has made: another virtflow on the machine is not our business.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from virtflow.images import names
from virtflow.network.addressing import bridge_draft_name
from virtflow.persistence.models import metadata
from virtflow.persistence.models.base import encode
from virtflow.storage.instance_directory import MARKER, TRASH

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.runner import Runner
    from virtflow.persistence.database import Database

HISTORY = frozenset(
    (
        *("operations", "flows", "atoms", "journal", "ledger", "logbooks", "claims", "quota_projects"),
        "decisions",
    )
)
"""Tables that only grow."""
SETTINGS = frozenset(
    ("hosts", "networks", "flavors", "quota_limits", "server_groups", "volume_backends", "volume_types")
)
"""Tables that only a person changes, or the host by what it is."""

_VOLATILE = frozenset(("created_at", "updated_at", "launched_at", "deleted_at", "purged_at", "generation"))
_CACHE = "_base"
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Residue:
    """One line per thing that is there; equal worlds have equal lines."""

    lines: frozenset[str]

    @classmethod
    def take(cls, config: Config) -> Self:
        """Look at the world that this configuration describes."""
        from virtflow.engine.services import Services
        from virtflow.persistence.database import Database

        database = Database(config.database.url, busy_timeout=config.database.busy_timeout)
        services = Services(config, database)
        try:
            return cls(frozenset(_look(config, services, database)))
        finally:
            services.close()
            database.close()

    @classmethod
    def around(cls, runner: Runner) -> Self:
        """The same with what a runner has open already (an embedded libvirt is one per process)."""
        return cls(frozenset(_look(runner.config, runner.services, runner.database)))

    def difference(self, later: Residue) -> list[str]:
        """What ``later`` has more (``left:``) and less (``lost:``), sorted; empty when the worlds are the same."""
        left = [f"left: {line}" for line in later.lines - self.lines]
        lost = [f"lost: {line}" for line in self.lines - later.lines]
        return sorted(left) + sorted(lost)

    def renamed(self, identities: Mapping[str, str]) -> Residue:
        """The same world with other names, so that two runs can be compared whose identities differ by design."""
        return Residue(frozenset(_rename(line, identities) for line in self.lines))


def _look(config: Config, services: Mapping[str, Any], database: Database) -> Iterator[str]:
    yield from _files(config)
    root = config.libvirt.embed_root
    if root is None or root.exists():  # asking an embedded driver that was never used would make its directory
        yield from _domains(services["hypervisor"])
    yield from _links(services["taps"], database)
    yield from _volumes(services["volume_drivers"])
    yield from _rows(database)
    yield from _processes(config)


def _files(config: Config) -> Iterator[str]:
    """Below the instances' directory everything but the cache; images in any state; elsewhere what is half done."""
    instances = config.instances.path
    for path in _below(instances, skip=(instances / "locks", instances / _CACHE)):
        if path != instances / TRASH:
            yield _describe(path, instances)
    for path in _below(instances / _CACHE):
        if names.unfinished_base(path.name):
            yield f"file {path.relative_to(instances)}"
    for path in _below(config.images.catalog):
        if path.parent == config.images.catalog and path.is_dir():
            yield f"image {path.name}"
    skip = (instances, config.images.catalog, *(root for root in [config.libvirt.embed_root] if root))
    for path in _below(config.state_dir, skip=skip):
        if ".tmp." in path.name:
            yield f"file {path.relative_to(config.state_dir)}"


def _below(directory: Path, skip: Iterable[Path] = ()) -> Iterator[Path]:
    for parent, directories, files in os.walk(directory):
        here = Path(parent)
        directories[:] = [name for name in directories if here / name not in skip]
        yield from (here / name for name in (*directories, *files))


def _describe(path: Path, root: Path) -> str:
    mode = path.lstat().st_mode
    kind = "directory" if stat.S_ISDIR(mode) else "file"
    owner = f" of {path.read_text()}" if path.name == MARKER else ""
    return f"{kind} {path.relative_to(root)} {stat.S_IMODE(mode):o}{owner}"


def _domains(hypervisor: Any) -> Iterator[str]:
    for domain in hypervisor.domains():
        yield f"domain {domain.uuid} {domain.name} {domain.state} of {domain.operation}"
    for name in hypervisor.filters():
        if name.startswith("virtflow-"):
            yield f"filter {name}"


def _links(taps: Any, database: Database) -> Iterator[str]:
    tables = metadata.tables
    made = sa.select(tables["ledger"].c.identity).where(tables["ledger"].c.kind == "tap")
    with database.connect() as connection:
        operations = set(connection.execute(sa.select(tables["operations"].c.id)).scalars())
        ours = set(connection.execute(made).scalars()) | set(
            connection.execute(sa.select(tables["ports"].c.tap)).scalars()
        )
        bridges = sa.select(tables["networks"].c.id, tables["networks"].c.bridge)
        networks = {row.id: bridge_draft_name(row.bridge) for row in connection.execute(bridges)}
    for tap in taps.list():
        if tap.name in ours or (tap.owner or "::").split(":")[1] in operations:
            yield f"tap {tap.name} in {tap.bridge} of {tap.owner}"
    for name, alias in taps.bridges().items():
        if (alias or "").rpartition(":")[2] in networks or (alias is None and name in networks.values()):
            yield f"bridge {name} of {alias}"


def _volumes(drivers: Any) -> Iterator[str]:
    """What is on the backends of this host, the trash and what is half done included, and what is served of it."""
    for backend in drivers.names():
        driver = drivers.get(backend)
        yield from (f"content {backend} {name}" for name in driver.contents())
        yield from (f"export {backend} {name}" for name in driver.exported())


def _rows(database: Database) -> Iterator[str]:
    with database.connect() as connection:
        for name, table in metadata.tables.items():
            if name in HISTORY | SETTINGS:
                continue
            query = sa.select(*(column for column in table.columns if column.name not in _VOLATILE))
            if "purged_at" in table.columns:
                query = query.where(table.c.purged_at.is_(None))
            for row in connection.execute(query):
                plain = {key: _plain(value) for key, value in row._mapping.items()}
                yield f"row {name} {encode(plain)}"


def _plain(value: Any) -> Any:
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def _processes(config: Config) -> Iterator[str]:
    """Programs that work on something of ours, with the uuids they mention; Python is who looks, or who tests."""
    needle = os.fsencode(config.state_dir) + b"/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        program = os.path.basename(command.partition(b"\0")[0]).decode("utf-8", "replace")
        if needle in command and not program.startswith("python"):
            # In the order of the command, which is the same in every run; the uuids are not.
            mentioned = dict.fromkeys(found.decode() for found in _UUID.findall(command))
            yield f"process {program} {' '.join(mentioned)}".rstrip()


def _rename(line: str, identities: Mapping[str, str]) -> str:
    for old, new in identities.items():
        line = line.replace(old, new)
    return line
