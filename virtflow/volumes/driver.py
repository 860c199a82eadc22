"""What a volume driver is. It gets plain values, and knows neither operations nor the database.

Every method may be called twice: what is so already counts as done. A volume or snapshot that has its name is complete.
Names are ``volume-ID`` and ``snapshot-ID``; sizes are bytes. Errors are VolumeError (or another VirtflowError).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from virtflow.activity import IDLE, Activity

SERVED = ("iscsi", "nbd")
"""The kinds of connections behind which there is a server."""


@dataclass(frozen=True)
class Capacity:
    """Of the whole backend, in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class Connection:
    """How a volume is reached: plain data, saved before anybody connects. A secret is never in it.

    ``kind`` is file or block (``path``, ``format``; on the backend's own host), iscsi (``target`` is the IQN) or nbd
    (``target`` is the export's name). ``encryption`` is luks where QEMU needs the volume's key to open it: no driver
    knows that, whoever exports the volume adds it.
    """

    kind: str
    path: str = ""
    format: str = "raw"
    address: str = ""
    port: int = 0
    target: str = ""
    lun: int = 0
    user: str = ""
    encryption: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Connection:
        """What was saved, by this or an older version."""
        return cls(**{field.name: saved[field.name] for field in fields(cls) if field.name in saved})


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Reach:
    """Who wants to reach a volume: an instance on the backend's own host, or one that needs a server. ``user`` and
    ``password`` are for CHAP, which a server that knows it always asks for; a user never gets another password.

    ``wanted`` is asked while nobody else can take the export away: False, and nothing is exported (VolumeError)."""

    local: bool = True
    user: str = ""
    password: str = field(default="", repr=False)
    wanted: Callable[[], bool] = field(default=_always, repr=False, compare=False)


LOCAL = Reach()
REMOTE = Reach(local=False)


def volume_name(identity: str) -> str:
    return f"volume-{identity}"


def snapshot_name(identity: str) -> str:
    return f"snapshot-{identity}"


class VolumeDriver(Protocol):
    """One backend. Made once with its name and its settings."""

    def capabilities(self) -> Mapping[str, Any]:
        """What types of volumes may ask for."""

    def capacity(self) -> Capacity: ...

    def create(self, name: str, size: int, activity: Activity = IDLE) -> None:
        """A blank one."""

    def clone_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> bool:
        """Make it of a raw image without copying its content; False where that cannot be done."""

    def copy_image(self, name: str, image: Path, size: int, activity: Activity = IDLE) -> None:
        """Make it of a raw image by copying; holes stay holes."""

    def clone(self, name: str, source: str, size: int, activity: Activity = IDLE) -> None:
        """Make a volume of another volume or snapshot, which nobody writes to meanwhile: its guest is halted."""

    def snapshot(self, name: str, volume: str, activity: Activity = IDLE) -> None:
        """Keep what a volume, which nobody writes to meanwhile, has now."""

    def size(self, name: str) -> int | None:
        """None when it is not there."""

    def extend(self, name: str, size: int, activity: Activity = IDLE) -> None:
        """Let it grow; a smaller ``size`` changes nothing."""

    def shrink(self, name: str, size: int, activity: Activity = IDLE) -> None:
        """Take back an extension. VolumeError when anything was written beyond ``size``."""

    def remove(self, name: str) -> None:
        """Remove what ``create``, ``clone``, ``copy_image`` or ``snapshot`` has made or begun, for good."""

    def delete(self, name: str, trash: str) -> None:
        """Put it into the trash of this name."""

    def restore(self, name: str, trash: str) -> None:
        """Take it out of that trash again."""

    def in_trash(self, trash: str) -> bool: ...

    def purge(self, trash: str) -> None:
        """Empty that trash for good."""

    def export(self, name: str, reach: Reach = LOCAL) -> Connection:
        """Let somebody reach it, and say how. What is exported already, for the same reach, stays as it is; what was
        lost (its server was restarted) is made again. VolumeError where this backend cannot be reached like that."""

    def unexport(self, name: str) -> None:
        """Nobody reaches it any more, from wherever."""

    def exported(self) -> list[str]:
        """The volumes of this backend that a server serves now, by name; what is half exported is not served."""

    def contents(self) -> list[str]:
        """All there is of this backend's: volumes and snapshots by name, ``trash/NAME``, and what is half done."""
