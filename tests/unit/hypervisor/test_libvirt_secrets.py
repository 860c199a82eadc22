"""What libvirt keeps for volumes, as it is listed: with a double of libvirt's connection."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("libvirt", reason="needs libvirt-python")

from virtflow.errors import VolumeError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.libvirt_secrets import LibvirtSecrets

ISCSI, VOLUME = libvirt.VIR_SECRET_USAGE_TYPE_ISCSI, libvirt.VIR_SECRET_USAGE_TYPE_VOLUME


@dataclass
class Secret:
    """``error``: libvirt's number of why it cannot be described."""

    usage: str
    kind: int = ISCSI
    description: str = "virtflow"
    error: int | None = None

    def usageType(self) -> int:  # noqa: N802 - libvirt's name
        return self.kind

    def usageID(self) -> str:  # noqa: N802 - libvirt's name
        return self.usage

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        if self.error is not None:
            raised = libvirt.libvirtError("virSecretGetXMLDesc() failed")
            raised.err = (self.error, 0, "no secret", 2, "", "", "", -1, -1)
            raise raised
        return f"<secret><description>{self.description}</description></secret>"


def secrets(*found: Secret) -> LibvirtSecrets:
    connection = SimpleNamespace(listAllSecrets=lambda _flags: list(found))
    hypervisor: Any = SimpleNamespace(uri="qemu:///system", call=lambda function: function(connection))
    return LibvirtSecrets(hypervisor)


def test_ours_are_told_by_what_they_are_described_as() -> None:
    kept = secrets(Secret("b"), Secret("a"), Secret("theirs", description="somebody's"), Secret("virtflow/k", VOLUME))
    assert kept.usages() == ["a", "b"]
    assert kept.keys() == ["k"]


def test_one_that_is_forgotten_while_they_are_listed_is_not_there() -> None:
    assert secrets(Secret("a"), Secret("gone", error=libvirt.VIR_ERR_NO_SECRET)).usages() == ["a"]


def test_what_else_libvirt_refuses_is_told_as_our_own_error() -> None:
    with pytest.raises(VolumeError, match="cannot list the secrets of"):
        secrets(Secret("a", error=libvirt.VIR_ERR_INTERNAL_ERROR)).usages()
