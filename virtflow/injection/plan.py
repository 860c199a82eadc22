"""What is to be injected into which disk, and what became of it: plain data, between two processes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ITEMS = ("key", "network", "metadata", "admin_password", "files")
"""In the order in which they are written: a file of the user has the last word."""

METHODS = ("fuse", "debugfs", "libguestfs")
"""In the order in which ``auto`` tries them."""


@dataclass(frozen=True, kw_only=True)
class GuestItems:
    """What the guest gets. An item that is empty is not asked for; secrets do not show in the ``repr``.

    ``network`` is the content of /etc/network/interfaces, ``files`` are content by path.
    """

    keys: tuple[str, ...] = ()
    network: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    admin_password: str | None = field(default=None, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def wanted(self) -> tuple[str, ...]:
        """Names of the items that there are."""
        given = (self.keys, self.network, self.metadata, self.admin_password, self.files)
        return tuple(name for name, value in zip(ITEMS, given, strict=True) if value)


@dataclass(frozen=True, kw_only=True)
class InjectionPlan:
    """``partition`` as in [injection] partition, but not -2; ``methods`` in the order in which they are tried."""

    disk: Path
    disk_format: str
    partition: int
    methods: tuple[str, ...]
    items: GuestItems
    mandatory: frozenset[str] = frozenset(("files",))
    guestfs_backend: str = "direct"
    guestfs_emulated: bool = False

    def must(self) -> tuple[str, ...]:
        """Items that are wanted and must not fail."""
        return tuple(name for name in self.items.wanted() if name in self.mandatory)

    def to_json(self) -> bytes:
        items = self.items
        plain = {
            **{name: getattr(self, name) for name in ("disk_format", "partition", "methods")},
            **{name: getattr(self, name) for name in ("guestfs_backend", "guestfs_emulated")},
            "disk": str(self.disk),
            "mandatory": sorted(self.mandatory),
            "items": {
                "keys": items.keys,
                "network": None if items.network is None else _encoded(items.network),
                "metadata": dict(items.metadata),
                "admin_password": items.admin_password,
                "files": {path: _encoded(content) for path, content in items.files.items()},
            },
        }
        return json.dumps(plain).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        plain = json.loads(text)
        items = plain.pop("items")
        network = items["network"]
        return cls(
            disk=Path(plain.pop("disk")),
            methods=tuple(plain.pop("methods")),
            mandatory=frozenset(plain.pop("mandatory")),
            items=GuestItems(
                keys=tuple(items["keys"]),
                network=None if network is None else base64.b64decode(network),
                metadata=items["metadata"],
                admin_password=items["admin_password"],
                files={path: base64.b64decode(content) for path, content in items["files"].items()},
            ),
            **plain,
        )


@dataclass(frozen=True)
class InjectionResult:
    """``injected`` items are in the guest; ``failed`` ones are not, for a reason, and were not mandatory.

    ``method`` is what did it, None when nothing could.
    """

    injected: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"injected": list(self.injected), "failed": dict(self.failed), "method": self.method}


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
