"""What is known of an image, whichever source it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ImageRecord:
    """One image of one source.

    ``size`` and ``virtual_size`` are bytes, ``min_disk`` GiB, ``min_ram`` MiB. ``checksum`` is (algorithm, hex digest)
    of the image's bytes as the source delivers them. ``disk_format`` is what the image claims to be.
    """

    id: str
    name: str
    source: str
    disk_format: str
    size: int | None = None
    checksum: tuple[str, str] | None = None
    min_disk: int = 0
    min_ram: int = 0
    virtual_size: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What errors call the image."""
        return self.name or self.id

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; ``from_dict`` takes it back."""
        plain = asdict(self)
        plain["checksum"] = list(self.checksum) if self.checksum else None
        plain["properties"] = dict(self.properties)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ImageRecord:
        """Raises KeyError, TypeError or ValueError when the data is not a record."""
        checksum = plain["checksum"]
        return cls(
            id=str(plain["id"]),
            name=str(plain["name"]),
            source=str(plain["source"]),
            disk_format=str(plain["disk_format"]),
            size=_whole(plain["size"]),
            checksum=(str(checksum[0]), str(checksum[1])) if checksum else None,
            min_disk=int(plain["min_disk"]),
            min_ram=int(plain["min_ram"]),
            virtual_size=_whole(plain["virtual_size"]),
            properties={str(name): str(value) for name, value in plain["properties"].items()},
        )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


ImageRecords = list[ImageRecord]
"""Spelled out here because sources have a method called ``list``."""
