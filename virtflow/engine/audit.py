"""The residue audit: what is on this host, or in the database, that nobody answers for. It changes nothing.

Whatever virtflow makes belongs to an instance that lives or to an operation that is not over; everything else is a
finding. So is an operation whose process died. Lock files are permanent by design, and caches are caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from virtflow.engine.audit_books import Books, Finding, read_books
from virtflow.engine.audit_host import host_findings
from virtflow.engine.audit_rows import row_findings
from virtflow.engine.audit_volumes import volume_findings
from virtflow.persistence import schema
from virtflow.persistence.database import Database

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.engine.runner import Runner

__all__ = ["Finding", "audit", "audit_of", "audit_with"]


def audit(config: Config) -> list[Finding]:
    """Audit this host. Raises DatabaseError, SchemaMismatch, HypervisorUnreachable.

    While a worker runs the embedded driver, which has room for one process, the driver's files are read instead.
    """
    from virtflow.engine.services import Services
    from virtflow.hypervisor.connection import embed_root_holder
    from virtflow.hypervisor.embedded_files import EmbeddedFiles

    database = Database(config.database.url, busy_timeout=config.database.busy_timeout)
    root = config.libvirt.embed_root
    held = root is not None and embed_root_holder(root) is not None
    services = Services(config, database, {"hypervisor": EmbeddedFiles(root)} if root is not None and held else None)
    try:
        schema.check(database)
        return audit_with(config, services, database)
    finally:
        services.close()
        database.close()


def audit_of(runner: Runner) -> list[Finding]:
    """The same with what a runner has open already."""
    return audit_with(runner.config, runner.services, runner.database)


def audit_with(config: Config, services: Mapping[str, Any], database: Database) -> list[Finding]:
    """The same with services and database of the caller's choice; findings sorted by kind and identity."""
    return sorted(_findings(config, services, read_books(database, config.host)))


def _findings(config: Config, services: Mapping[str, Any], books: Books) -> Iterator[Finding]:
    yield from row_findings(books, config.instances.path)
    yield from host_findings(books, config, services)
    yield from volume_findings(books, config, services)
