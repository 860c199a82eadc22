"""What this host puts on every config drive, whatever the instance, and the whole tree of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtflow.errors import ConfigurationError
from virtflow.metadata.ec2 import EC2_VERSIONS, ec2_tree
from virtflow.metadata.instance_metadata import VERSIONS, InstanceMetadata, tree
from virtflow.metadata.network_template import DEFAULT_TEMPLATE, check_template

_LIMIT = 1 << 20
"""Bytes of a file that the configuration names."""


@dataclass(frozen=True)
class DriveContents:
    """``skip_versions`` are left out of both trees (``latest`` cannot be); ``vendor_data`` is what every guest gets."""

    skip_versions: tuple[str, ...] = ()
    vendor_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    network_template: str = field(default=DEFAULT_TEMPLATE, repr=False)

    @classmethod
    def load(
        cls, skip_versions: tuple[str, ...], vendor_data: Path | None, network_template: Path | None
    ) -> DriveContents:
        """From the configuration and the files that it names. Raises ConfigurationError."""
        for version in skip_versions:
            if version not in (*EC2_VERSIONS, *VERSIONS):
                raise _wrong("skip_versions", f"{version[:40]!a} is no version of the config drive")
        template = DEFAULT_TEMPLATE
        if network_template is not None:
            template = _template(_read("network_template", network_template))
        vendor: Mapping[str, Any] = {}
        if vendor_data is not None:
            vendor = _object(_read("vendor_data", vendor_data), vendor_data)
        return cls(tuple(skip_versions), vendor, template)

    def tree(self, md: InstanceMetadata) -> dict[str, bytes]:
        """All files of the drive, by relative path, sorted."""
        openstack = tree(md, [version for version in VERSIONS if version not in self.skip_versions])
        ec2 = ec2_tree(md, [version for version in EC2_VERSIONS if version not in self.skip_versions])
        return dict(sorted({**ec2, **openstack}.items()))


def _read(option: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise _wrong(option, f"{path} is larger than {_LIMIT} bytes")
        return content.decode()
    except OSError as error:
        raise _wrong(option, f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(option, f"{path} is not UTF-8 text") from error


def _object(text: str, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("vendor_data", f"{path} is not JSON") from error
    if not isinstance(found, dict):
        raise _wrong("vendor_data", f"{path} is not a JSON object")
    return found


def _template(text: str) -> str:
    try:
        check_template(text)
    except ValueError as error:
        raise _wrong("network_template", str(error)) from error
    return text


def _wrong(option: str, reason: str) -> ConfigurationError:
    return ConfigurationError(group="config_drive", option=option, reason=reason)
