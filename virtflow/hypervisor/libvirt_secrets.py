"""What libvirt keeps so that QEMU can open a volume: the password of an iSCSI target, and the key of an encrypted disk.
Nobody can read either there (``private``).

Reference: https://libvirt.org/formatsecret.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]  # lxml-stubs leaves it out

from virtflow.errors import VolumeError
from virtflow.hypervisor.binding import libvirt
from virtflow.hypervisor.hypervisor import Hypervisor
from virtflow.hypervisor.safe_xml import parse, text_for_xml
from virtflow.hypervisor.session import message

_OURS = "virtflow"
_KEY_USAGE = f"{_OURS}/"
_ISCSI = libvirt.VIR_SECRET_USAGE_TYPE_ISCSI
_VOLUME = libvirt.VIR_SECRET_USAGE_TYPE_VOLUME


class LibvirtSecrets:
    """Of one libvirt, by the ids of volumes. Every call may be repeated. VolumeError when libvirt refuses."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor

    # -- passwords, in libvirt's memory only: whoever has a guest started again gives them again

    def keep(self, usage: str, value: bytes) -> None:
        """Let libvirt know the password of a volume, in place of an earlier one. VolumeError where it keeps none."""
        target = E.target(text_for_xml(usage, "usage"))
        described = E.secret(E.description(_OURS), E.usage(target, type="iscsi"), ephemeral="yes", private="yes")
        remedy = "QEMU cannot log in to its target from there; libvirtd does, and an nbd export needs no password"
        self._define("reach", _ISCSI, usage, described, value, remedy)

    def forget(self, usage: str) -> None:
        """One that is not there is forgotten."""
        self._undefine("forget the password of", _ISCSI, usage)

    def usages(self) -> list[str]:
        """The volumes whose passwords virtflow has given it; none where libvirt keeps none."""
        return self._usages(_ISCSI, _is_ours)

    # -- keys, which stay, so that a guest can be started without us

    def keep_key(self, volume: str, key: bytes) -> None:
        """Let libvirt have the key of a volume. It is found by the volume's id, which is its uuid. VolumeError where it
        keeps none."""
        usage = E.usage(E.volume(_KEY_USAGE + text_for_xml(volume, "volume")), type="volume")
        described = E.secret(E.uuid(volume), usage, ephemeral="no", private="yes")
        remedy = "QEMU cannot open from there what is encrypted; libvirtd does"
        self._define("open", _VOLUME, volume, described, key, remedy)

    def forget_key(self, volume: str) -> None:
        """One that is not there is forgotten."""
        self._undefine("forget the key of", _VOLUME, volume)

    def keys(self) -> list[str]:
        """The volumes whose keys virtflow has given it; none where libvirt keeps none."""
        found = self._usages(_VOLUME, lambda secret: bool(secret.usageID().startswith(_KEY_USAGE)))
        return [usage.removeprefix(_KEY_USAGE) for usage in found]

    # -- inside

    def _define(
        self, action: str, usage_type: int, volume: str, described: etree._Element, value: bytes, remedy: str
    ) -> None:
        xml = etree.tostring(described, encoding="unicode")

        def define(connection: Any) -> None:
            secret = _find(connection, usage_type, volume)
            if secret is None:
                secret = connection.secretDefineXML(xml)
            secret.setValue(value)

        reason = f"libvirt at {self._hypervisor.uri} keeps no secrets, so {remedy}"
        if self._keeps_none():
            raise VolumeError(action=action, volume=volume, reason=reason)
        try:
            self._hypervisor.call(define)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                reason = message(error)
            raise VolumeError(action=action, volume=volume, reason=reason) from error

    def _undefine(self, action: str, usage_type: int, volume: str) -> None:
        def undefine(connection: Any) -> None:
            secret = _find(connection, usage_type, volume)
            if secret is not None:
                secret.undefine()

        if self._keeps_none():
            return
        try:
            self._hypervisor.call(undefine)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise VolumeError(action=action, volume=volume, reason=message(error)) from error

    def _usages(self, usage_type: int, wanted: Callable[[Any], bool]) -> list[str]:
        """Of the secrets of that type that are wanted, sorted."""

        def listed(connection: Any) -> list[str]:
            found = (each for each in connection.listAllSecrets(0) if each.usageType() == usage_type)
            return sorted(str(each.usageID()) for each in found if wanted(each))

        if self._keeps_none():
            return []
        try:
            return self._hypervisor.call(listed)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return []
            raise VolumeError(action="list the secrets of", volume="volumes", reason=message(error)) from error

    def _keeps_none(self) -> bool:
        """The embedded driver has no secrets, and libvirt 9.0 crashes when it is asked."""
        return urlsplit(self._hypervisor.uri).path == "/embed"


def _is_ours(secret: Any) -> bool:
    try:
        return parse(secret.XMLDesc(0)).findtext("description") == _OURS
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
        return False  # forgotten while they were listed


def _find(connection: Any, usage_type: int, volume: str) -> Any:
    usage = _KEY_USAGE + volume if usage_type == _VOLUME else volume
    try:
        return connection.secretLookupByUsage(usage_type, usage)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
        return None
