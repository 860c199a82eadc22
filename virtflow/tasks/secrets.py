"""Secrets of a request: the flow sees references, the values lie encrypted in a table of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from virtflow.tasks.base import Intent, Task


class StashSecrets(Task):
    """Provide the references of the request's secrets, which were stored in the transaction that made the operation.

    Reverts: purges them. References follow from the operation, so every execution provides the same.
    """

    default_provides = "secret_refs"

    def intents(self, operation: str, **_arguments: Any) -> tuple[Intent, ...]:
        return (Intent("secrets", operation),)

    def execute(self, request: Mapping[str, Any], operation: str, secrets: Any) -> dict[str, str]:
        names = [value["secret"] for value in request.values() if isinstance(value, dict) and "secret" in value]
        return {name: secrets.reference(operation, name) for name in names}

    def revert(self, operation: str, secrets: Any, **_kwargs: Any) -> None:
        secrets.purge(operation)


class PurgeSecrets(Task):
    """Remove the operation's secrets: the guest has them now.

    Reverts: nothing. They are gone, and nothing that is reverted needs them.
    """

    def execute(self, operation: str, secrets: Any) -> None:
        secrets.purge(operation)

    def revert(self, **_kwargs: Any) -> None:
        """Cannot be brought back, and need not."""
