"""What can be asked of images."""

from __future__ import annotations

from typing import ClassVar

from virtflow.requests.fields import Name, Reference
from virtflow.requests.models import Request


class ImageCreateRequest(Request):
    """Make an image of the root disk of an instance, running or not.

    ``quiesce``: with its file systems frozen at that moment, which the agent in the guest has to do.
    """

    kind: ClassVar[str] = "image-create"

    name: Reference
    instance: Name
    quiesce: bool = False

    def target(self) -> str:
        return f"instance:{self.instance}"
