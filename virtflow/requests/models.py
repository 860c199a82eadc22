"""The requests: one class per kind of operation.

A request is made from keyword arguments, from a file, or from what was stored. Whatever is wrong with it, the answer is
one ``InvalidRequest`` that names the field and never repeats more than a little of the value.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from virtflow.errors import InvalidRequest
from virtflow.requests.disks import Ephemerals, SwapMib
from virtflow.requests.fields import (
    Address,
    Content,
    HostName,
    MetaKey,
    Name,
    PublicKey,
    Reference,
    Text,
    UserData,
    guest_path,
    plain_text,
)
from virtflow.requests.files import read_request_file
from virtflow.requests.problems import first_error

MARKER = "secret"
"""A stored request has ``{"secret": <key of secrets()>}`` where a secret field was."""


class NetworkRequest(BaseModel):
    """One port: on which network, and with which address (None: the network picks one)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    network: Name
    address: Address | None = None


class InjectedFile(BaseModel):
    """A file for the guest's config drive, at an absolute path of the guest."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    path: Annotated[str, Field(min_length=2, max_length=255), AfterValidator(guest_path)]
    content: Content = Field(repr=False)


class Request(BaseModel):
    """Base of all requests. Making one from wrong data raises InvalidRequest, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: ClassVar[str]
    secret_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise first_error(error) from None

    @classmethod
    def parse(cls, data: object) -> Self:
        """From a mapping, such as the content of a file."""
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            raise InvalidRequest(field="request", reason="must be a mapping of field names to values")
        fields = dict(data)
        if fields.pop("kind", cls.kind) != cls.kind:
            raise InvalidRequest(field="kind", reason=f"must be {cls.kind!r} here")
        return cls(**fields)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """From a YAML or JSON file."""
        return cls.parse(read_request_file(path))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], secrets: Mapping[str, bytes]) -> Self:
        """The inverse of ``to_plain`` and ``secrets``. A field whose secret is gone (purged) comes back unset."""
        fields = {name: value for name, value in plain.items() if name not in cls.secret_fields}
        fields |= {name: cls._restore(name, secrets[name]) for name in cls.secret_fields if name in secrets}
        return cls.parse(fields)

    def target(self) -> str:
        """What the operation holds while it runs: one operation per target at a time."""
        raise NotImplementedError

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data. A secret field that is set becomes a marker: its value travels by ``secrets``."""
        plain = self.model_dump(mode="json", exclude=set(self.secret_fields))
        for name in self.secret_fields:
            plain[name] = {MARKER: name} if getattr(self, name) else None
        return plain

    def secrets(self) -> dict[str, bytes]:
        """The values of the secret fields that are set, by field."""
        return {}

    @classmethod
    def _restore(cls, name: str, secret: bytes) -> Any:
        raise NotImplementedError


def listed(names: tuple[str, ...]) -> str:
    """``a, b and c``."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


LARGEST_GROUP = 1000
"""Instances of one request."""


class SpawnRequest(Request):
    """Make an instance. Its size is either a flavor, or vcpus, memory_mib and disk_gib together.

    ``ephemeral_gib`` and ``swap_mib`` add disks to either; left out, they are what the flavor says. ``volumes`` are
    attached from the start. With ``boot_volume`` in place of ``image`` it boots from that volume, and has no root disk
    of its own; with ``boot_volume_gib`` from a volume of that size, NAME-root, which is made of the image. With
    ``delete_volume`` the volume that it boots from is deleted together with it.
    """

    # With max_count above 1 a request asks for several instances, NAME-1 to NAME-N: as many as the quota allows, but
    # not less than min_count. launch_index is then the number of each among them, from 0.

    kind: ClassVar[str] = "spawn"
    secret_fields: ClassVar[tuple[str, ...]] = ("admin_password", "user_data", "files", "ssh_keys")

    name: Name
    image: Reference | None = None
    flavor: Name | None = None
    vcpus: Annotated[int, Field(ge=1, le=512)] | None = None
    memory_mib: Annotated[int, Field(ge=16, le=16 * 2**20)] | None = None
    disk_gib: Annotated[int, Field(ge=1, le=65536)] | None = None
    ephemeral_gib: Ephemerals | None = None
    swap_mib: SwapMib | None = None
    volumes: Annotated[list[Name], Field(max_length=16)] = []
    boot_volume: Name | None = None
    boot_volume_gib: Annotated[int, Field(ge=1, le=65536)] | None = None
    delete_volume: bool = False
    networks: Annotated[list[NetworkRequest], Field(max_length=16)] = []
    ssh_keys: Annotated[list[PublicKey], Field(max_length=64)] = Field(default=[], repr=False)
    user_data: UserData | None = Field(default=None, repr=False)
    meta: Annotated[dict[MetaKey, Text], Field(max_length=128)] = {}
    config_drive: bool | None = None
    availability_zone: Name | None = None
    host: HostName | None = None
    admin_password: SecretStr | None = None
    files: Annotated[list[InjectedFile], Field(max_length=16)] = Field(default=[], repr=False)
    title: Text | None = None
    server_group: Name | None = None
    min_count: Annotated[int, Field(ge=1, le=LARGEST_GROUP)] = 1
    max_count: Annotated[int, Field(ge=1, le=LARGEST_GROUP)] | None = None
    launch_index: Annotated[int, Field(ge=0, lt=LARGEST_GROUP)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_disks()
        names = ("vcpus", "memory_mib") if self._boots_from_volume else ("vcpus", "memory_mib", "disk_gib")
        sizes = {name: getattr(self, name) for name in names}
        given = [name for name, value in sizes.items() if value is not None]
        if self.flavor is not None and given:
            raise InvalidRequest(field="flavor", reason=f"cannot be combined with {', '.join(given)}")
        if self.flavor is None and len(given) < len(sizes):
            missing = [name for name in sizes if name not in given]
            reason = f"is required, with {', '.join(given)}" if given else f"or {listed(names)} is required"
            raise InvalidRequest(field=missing[0] if given else "flavor", reason=reason)
        _unique("files", "path", [file.path for file in self.files])
        self._check_paths([file.path for file in self.files])
        _unique("networks", "address", [(n.network, n.address) for n in self.networks if n.address])
        if self.admin_password is not None:
            self._check_password(self.admin_password.get_secret_value())
        if self.most < self.min_count:
            raise InvalidRequest(field="max_count", reason=f"must be at least min_count ({self.min_count})")
        if self.most > 1:
            self._check_several()
        return self

    @property
    def most(self) -> int:
        """How many instances are asked for at most."""
        return self.min_count if self.max_count is None else self.max_count

    def numbered(self, count: int) -> list[SpawnRequest]:
        """This request as ``count`` requests for one instance each."""
        single = {"min_count": 1, "max_count": None}
        return [
            self.model_copy(update={**single, "name": f"{self.name}-{index + 1}", "launch_index": index})
            for index in range(count)
        ]

    @property
    def _boots_from_volume(self) -> bool:
        return self.boot_volume is not None or self.boot_volume_gib is not None

    def _check_disks(self) -> None:
        if self.boot_volume is None and self.image is None:
            raise InvalidRequest(field="image", reason="is required")
        if self.boot_volume is not None and self.image is not None:
            raise InvalidRequest(field="boot_volume", reason="cannot be combined with image")
        if self._boots_from_volume and self.disk_gib is not None:
            raise InvalidRequest(field="disk_gib", reason="cannot be combined with a volume, which is the root disk")
        if self.boot_volume is not None and self.boot_volume_gib is not None:
            raise InvalidRequest(field="boot_volume_gib", reason="cannot be combined with boot_volume")
        if self.delete_volume and not self._boots_from_volume:
            raise InvalidRequest(field="delete_volume", reason="is about a volume to boot from, and there is none")
        named = [*self.volumes, *([self.boot_volume] if self.boot_volume else [])]
        if len(set(named)) < len(named):
            raise InvalidRequest(field="volumes", reason="has the same volume twice")
        if named and self.most > 1:
            raise InvalidRequest(field="volumes", reason="can be given to a single instance only")

    @staticmethod
    def _check_paths(paths: list[str]) -> None:
        for path in paths:
            if any(other.startswith(f"{path}/") for other in paths):
                raise InvalidRequest(field="files", reason=f"{path} is a file and a directory of another one")

    def _check_several(self) -> None:
        if self.launch_index:
            raise InvalidRequest(field="launch_index", reason="is given to each of several instances by its number")
        if any(network.address for network in self.networks):
            raise InvalidRequest(field="networks", reason="an address can be chosen for a single instance only")
        longest = 63 - len(f"-{self.most}")
        if len(self.name) > longest:
            reason = f"must have at most {longest} characters for {self.most} instances"
            raise InvalidRequest(field="name", reason=reason)

    @staticmethod
    def _check_password(password: str) -> None:
        try:
            plain_text(password)
        except ValueError as error:
            raise InvalidRequest(field="admin_password", reason=str(error)) from None
        if not 4 <= len(password) <= 255:
            raise InvalidRequest(field="admin_password", reason="must be 4 to 255 characters")

    def target(self) -> str:
        return f"instance:{self.name}"

    def secrets(self) -> dict[str, bytes]:
        found = {}
        if self.admin_password is not None:
            found["admin_password"] = self.admin_password.get_secret_value().encode()
        if self.user_data:
            found["user_data"] = self.user_data
        if self.files:
            files = [{"path": f.path, "content": base64.b64encode(f.content).decode()} for f in self.files]
            found["files"] = json.dumps(files).encode()
        if self.ssh_keys:
            found["ssh_keys"] = "\n".join(self.ssh_keys).encode()
        return found

    @classmethod
    def _restore(cls, name: str, secret: bytes) -> Any:
        if name == "admin_password":
            return SecretStr(secret.decode())
        if name == "ssh_keys":
            return secret.decode().splitlines()
        return secret if name == "user_data" else json.loads(secret)


class DeleteRequest(Request):
    """Remove an instance. Its disks go to the trash and can be brought back by undo until they are purged."""

    kind: ClassVar[str] = "delete"

    name: Name

    def target(self) -> str:
        return f"instance:{self.name}"


REQUESTS: dict[str, type[Request]] = {cls.kind: cls for cls in (SpawnRequest, DeleteRequest)}
"""Request classes by the kind of the operation."""


def _unique(field: str, what: str, values: list[Any]) -> None:
    if len(set(values)) < len(values):
        raise InvalidRequest(field=field, reason=f"has the same {what} twice")
