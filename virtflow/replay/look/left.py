"""``replay left``: what an operation has announced, and what of it still exists. It reads, and changes nothing.

Recorded is what the ledger says; live is what this host and this database say now. What is on another host cannot be
asked from here, and is said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from virtflow.errors import ImageUnavailable, NotFound
from virtflow.persistence.ledger import CLEARED, DEBT, REVERT
from virtflow.persistence.models import inventory
from virtflow.replay.recording import LedgerEntry, Recording

if TYPE_CHECKING:
    from virtflow.config import Config
    from virtflow.persistence.database import Database

THERE = "there"
GONE = "gone"
UNKNOWN = "not checked"
_DEBT_FOUND = "debt"
"""What the audit says of the ledger's own rows, which are listed already."""

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Thing:
    """Something announced, or found. ``recorded``: the ledger's state, None when the ledger does not know of it."""

    kind: str
    identity: str
    host: str
    task: str | None
    recorded: str | None
    live: str
    remark: str = ""

    @property
    def matters(self) -> bool:
        """Whether it is there, should be looked at, or nobody knows."""
        return self.live == THERE or self.recorded == DEBT or (self.live == UNKNOWN and self.recorded != CLEARED)

    def to_dict(self) -> dict[str, Any]:
        names = ("kind", "identity", "host", "task", "recorded", "live", "remark")
        return {name: getattr(self, name) for name in names}


def recorded_only(recording: Recording) -> list[Thing]:
    """Of a file, where there is nothing to ask."""
    return [_thing(entry, UNKNOWN, "only the recording was looked at") for entry in recording.ledger]


def checked(recording: Recording, config: Config, database: Database) -> list[Thing]:
    """Everything announced, checked live as far as it is of this host or in the database; then what the audit finds."""
    from virtflow.engine.audit import audit_with
    from virtflow.engine.services import Services

    services = Services(config, database)
    try:
        checks = {**_host_checks(config, services), **_row_checks(database, recording.operation.id)}
        things = [_checked(entry, checks, config.host) for entry in recording.ledger]
        known = {(thing.kind, thing.identity) for thing in things}
        for finding in audit_with(config, services, database):
            named = (finding.kind, finding.identity) in known or finding.kind == _DEBT_FOUND
            if finding.operation == recording.operation.id and not named:
                found = (finding.kind, finding.identity, config.host, None, None, THERE)
                things.append(Thing(*found, remark=f"audit: {finding.reason}"))
        return things
    finally:
        services.close()


def _thing(entry: LedgerEntry, live: str, remark: str = "") -> Thing:
    remark = remark or (entry.error or "" if entry.state == DEBT else "")
    return Thing(entry.kind, entry.identity, entry.host, entry.task, entry.state, live, remark)


def _checked(entry: LedgerEntry, checks: Mapping[str, tuple[Check, bool]], here: str) -> Thing:
    if entry.kind == REVERT:
        return _thing(entry, UNKNOWN, f"whatever it was: {entry.error or 'its revert failed'}")
    if entry.kind not in checks:
        return _thing(entry, UNKNOWN, f"nothing here knows how to look for a {entry.kind}")
    check, local = checks[entry.kind]
    if local and entry.host != here:
        return _thing(entry, UNKNOWN, f"it is on {entry.host}, and this is {here}")
    return _thing(entry, THERE if check(entry.identity) else GONE)


def _host_checks(config: Config, services: Mapping[str, Any]) -> dict[str, tuple[Check, bool]]:
    """By kind of thing, how to look for it; True: only its own host can."""
    root = config.libvirt.embed_root
    asked = root is None or root.exists()  # an embedded driver that was never used has no domains

    def domain(uuid: str) -> bool:
        return asked and services["hypervisor"].state(uuid) is not None

    def tap(name: str) -> bool:
        return any(each.name == name for each in services["taps"].list())

    def file(path: str) -> bool:
        return Path(path).exists()

    def image(identity: str) -> bool:
        try:
            services["image_source"].get(identity)
        except NotFound:
            return False
        except ImageUnavailable:  # known, and without content
            return True
        return True

    kinds = ("directory", "file", "injection", "trash", "purge")
    found: dict[str, tuple[Check, bool]] = dict.fromkeys(kinds, (file, True))
    images = dict.fromkeys(("image", "image_content"), (image, True))
    return found | images | {"domain": (domain, True), "tap": (tap, True)}


def _row_checks(database: Database, operation: str) -> dict[str, tuple[Check, bool]]:
    """Rows are of everyone: any host can look."""

    def exists(table: sa.Table, condition: Callable[[str], Iterable[Any]]) -> tuple[Check, bool]:
        def check(identity: str) -> bool:
            query = sa.select(sa.literal(1)).select_from(table).where(*condition(identity)).limit(1)
            with database.connect() as connection:
                return connection.execute(query).first() is not None

        return check, False

    def consumer(identity: str) -> str:
        return identity.rpartition("/")[2]

    living, port, held = inventory.instances.c, inventory.ports.c, inventory.allocations.c
    charge, base, member = inventory.quota_charges.c, inventory.base_references.c, inventory.server_group_members.c
    awaited, secret = inventory.vif_events.c, inventory.secrets.c
    return {
        "instance": exists(inventory.instances, lambda i: (living.uuid == i, living.deleted_at.is_(None))),
        "port": exists(inventory.ports, lambda i: (port.id == i,)),
        "allocation": exists(
            inventory.allocations, lambda i: (held.consumer == consumer(i), held.operation == operation)
        ),
        "quota": exists(inventory.quota_charges, lambda i: (charge.consumer == i, charge.operation == operation)),
        "base_reference": exists(
            inventory.base_references, lambda i: (base.consumer == consumer(i), base.operation == operation)
        ),
        "server_group_member": exists(inventory.server_group_members, lambda i: (member.instance == consumer(i),)),
        "vif_events": exists(inventory.vif_events, lambda i: (awaited.instance == i,)),
        "secrets": exists(inventory.secrets, lambda i: (secret.owner == i,)),
    }
