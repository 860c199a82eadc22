"""The request that moves an instance while it runs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from virtflow.requests.fields import HostName, Name
from virtflow.requests.models import Request


class LiveMigrateRequest(Request):
    """Move an instance to another host while its guest runs.

    ``host`` is where it has to go; left out, the scheduler chooses. Disks are copied unless both hosts share them;
    ``block`` insists on copying. ``bandwidth`` in MiB/s, ``complete_within`` in seconds; 0 is no limit. What is left
    out is as ``[live_migration]`` of the source says.
    """

    kind: ClassVar[str] = "live-migrate"

    name: Name
    host: HostName | None = None
    block: bool = False
    post_copy: bool | None = None
    auto_converge: bool | None = None
    bandwidth: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    complete_within: Annotated[float, Field(ge=0, le=31536000)] | None = None
    on_timeout: Literal["abort", "force"] | None = None

    def target(self) -> str:
        return f"instance:{self.name}"
