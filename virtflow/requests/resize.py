"""The requests that change an instance's size or host."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from virtflow.errors import InvalidRequest
from virtflow.requests.fields import HostName, Name
from virtflow.requests.models import Request


class ResizeRequest(Request):
    """Give an instance another size: a flavor, or some of vcpus, memory_mib and disk_gib; what is not named stays.

    ``host`` is where it has to go; left out, the scheduler chooses.
    """

    kind: ClassVar[str] = "resize"

    name: Name
    flavor: Name | None = None
    vcpus: Annotated[int, Field(ge=1, le=512)] | None = None
    memory_mib: Annotated[int, Field(ge=16, le=16 * 2**20)] | None = None
    disk_gib: Annotated[int, Field(ge=1, le=65536)] | None = None
    host: HostName | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("vcpus", "memory_mib", "disk_gib") if getattr(self, name) is not None]
        if self.flavor is not None and given:
            raise InvalidRequest(field="flavor", reason=f"cannot be combined with {', '.join(given)}")
        if self.flavor is None and not given:
            raise InvalidRequest(field="flavor", reason="or one of vcpus, memory_mib and disk_gib is required")
        return self

    def target(self) -> str:
        return f"instance:{self.name}"


class MigrateRequest(Request):
    """Move an instance to another host, with its disks; it is shut down meanwhile."""

    kind: ClassVar[str] = "migrate"

    name: Name
    host: HostName | None = None

    def target(self) -> str:
        return f"instance:{self.name}"


class EvacuateRequest(Request):
    """Make an instance anew on another host, because its own is dead and was fenced."""

    kind: ClassVar[str] = "evacuate"

    name: Name
    host: HostName | None = None

    def target(self) -> str:
        return f"instance:{self.name}"


class ConfirmRequest(Request):
    """Keep what a resize or a migration has made; what it would be reverted to goes to the trash."""

    kind: ClassVar[str] = "resize-confirm"

    name: Name

    def target(self) -> str:
        return f"instance:{self.name}"
