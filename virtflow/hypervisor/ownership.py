"""Which operation a domain belongs to, read from its metadata."""

from __future__ import annotations

from virtflow.hypervisor.domain_xml import METADATA_NAMESPACE
from virtflow.hypervisor.safe_xml import parse


def operation_of(xml: str) -> str | None:
    """The operation that made the domain, or None when virtflow did not make it."""
    element = parse(xml).find(f"metadata/{{{METADATA_NAMESPACE}}}instance")
    return None if element is None else element.get("operation")
