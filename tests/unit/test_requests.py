from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtflow.errors import InvalidRequest
from virtflow.requests import REQUESTS, USER_DATA_LIMIT, DeleteRequest, Request, SpawnRequest

ED25519 = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode()
KEY = f"ssh-ed25519 {ED25519} me@laptop"
LEAST: dict[str, Any] = {"name": "web1", "image": "debian-12", "flavor": "small"}


def spawn(**fields: Any) -> SpawnRequest:
    return SpawnRequest(**{**LEAST, **fields})


def test_a_request_with_a_flavor_is_accepted() -> None:
    request = spawn()
    assert (request.target(), request.kind) == ("instance:web1", "spawn")


def test_a_request_with_its_own_sizes_is_accepted() -> None:
    assert spawn(flavor=None, vcpus=2, memory_mib=512, disk_gib=10).memory_mib == 512


def test_a_full_request_comes_back_from_its_plain_form_and_its_secrets() -> None:
    request = spawn(
        networks=[{"network": "blue", "address": "10.0.0.9"}, {"network": "red"}],
        ssh_keys=[KEY],
        user_data=b"#cloud-config\n\xff",
        meta={"role": "db"},
        config_drive=True,
        availability_zone="az1",
        host="node-7.example.org",
        admin_password="hunter22",
        files=[{"path": "/etc/motd", "content": base64.b64encode(b"hello").decode()}],
        title="the web server",
    )
    plain = json.loads(json.dumps(request.to_plain()))
    assert SpawnRequest.from_plain(plain, request.secrets()) == request


def test_a_request_without_secrets_comes_back_from_its_plain_form() -> None:
    assert SpawnRequest.from_plain(spawn().to_plain(), {}) == spawn()


def test_a_request_whose_secrets_were_purged_comes_back_without_them() -> None:
    request = spawn(user_data=b"abcd")
    assert SpawnRequest.from_plain(request.to_plain(), {}).user_data is None


def test_secrets_are_in_neither_the_plain_form_nor_the_repr() -> None:
    request = spawn(
        admin_password="sesame-open", user_data=b"sesame-data", ssh_keys=[f"{KEY}-sesame"],
        files=[{"path": "/x", "content": b"sesame-file"}],
    )  # fmt: skip
    assert sorted(request.secrets()) == ["admin_password", "files", "ssh_keys", "user_data"]
    seen = json.dumps(request.to_plain()) + repr(request) + str(request)
    assert "sesame" not in seen
    assert base64.b64encode(b"sesame-file").decode() not in seen
    assert ED25519 not in seen


def test_every_kind_of_request_is_registered_under_its_kind() -> None:
    assert all(cls.kind == kind for kind, cls in REQUESTS.items())
    assert {"spawn": SpawnRequest, "delete": DeleteRequest}.items() <= REQUESTS.items()


BAD_NAMES = [
    "", "-rf", ".hidden", "a/b", "../etc", "a..b", "a\0b", "a\nb", "a\n", "a\x1bb", 'a"b', "a'b", "a b", "x" * 64,
    "x" * 10_000, "\ud800", "ünï", "a\u2028b", "a`b", "$(reboot)",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("field", ["name", "flavor", "availability_zone"])
def test_a_hostile_name_is_refused_in_one_short_line_that_names_the_field(field: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spawn(**{field: name})
    assert caught.value.field == field
    assert one_short_line(str(caught.value))


@pytest.mark.parametrize("name", ["", "-h", "a/b", "a b", "a\n", "../x", "x" * 256, "ünï", "\ud800"])
def test_a_hostile_host_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        spawn(host=name)
    assert caught.value.field == "host"
    assert one_short_line(str(caught.value))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_hostile_name_is_refused_in_a_delete_too(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DeleteRequest(name=name)
    assert caught.value.field == "name"


@pytest.mark.parametrize("name", ["a", "web1", "0", "Web_1.example-com", "x" * 63])
def test_an_ordinary_name_is_accepted(name: str) -> None:
    assert spawn(name=name).name == name


BAD_FIELDS = [
    ({"name": 7}, "name", "in quotes"),
    ({"image": "../../etc/passwd"}, "image", "must not"),
    ({"image": "-x"}, "image", "must not"),
    ({"image": "a'b"}, "image", "must not"),
    ({"flavor": None}, "flavor", "vcpus"),
    ({"vcpus": 1}, "flavor", "cannot be combined"),
    ({"flavor": None, "vcpus": 1}, "memory_mib", "is required"),
    ({"flavor": None, "vcpus": 0, "memory_mib": 64, "disk_gib": 1}, "vcpus", "at least 1"),
    ({"flavor": None, "vcpus": 10**6, "memory_mib": 64, "disk_gib": 1}, "vcpus", "at most 512"),
    ({"flavor": None, "vcpus": True, "memory_mib": 64, "disk_gib": 1}, "vcpus", "whole number"),
    ({"flavor": None, "vcpus": "2", "memory_mib": 64, "disk_gib": 1}, "vcpus", "whole number"),
    ({"networks": "blue"}, "networks", "must be a list"),
    ({"networks": ["blue"]}, "networks[0]", "must be a mapping"),
    ({"networks": [{"network": "a/b"}]}, "networks[0].network", "letters"),
    ({"networks": [{"network": "a", "address": "10.0.0.300"}]}, "networks[0].address", "IP address"),
    ({"networks": [{"network": "a", "address": "10.0.0.1"}] * 2}, "networks", "twice"),
    ({"ssh_keys": ["hello"]}, "ssh_keys[0]", "public key"),
    ({"ssh_keys": ["ssh-ed25519 AAAA"]}, "ssh_keys[0]", "not a complete"),
    ({"ssh_keys": [f"ssh-rsa {ED25519}"]}, "ssh_keys[0]", "not a complete"),
    ({"ssh_keys": [f'command="x" {KEY}']}, "ssh_keys[0]", "public key"),
    ({"ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----\nabc"]}, "ssh_keys[0]", "private key"),
    ({"ssh_keys": [KEY + "\n" + KEY]}, "ssh_keys[0]", "control character"),
    ({"user_data": "not base64!"}, "user_data", "base64"),
    ({"user_data": b"x" * (USER_DATA_LIMIT + 1)}, "user_data", "at most 65536 bytes"),
    ({"meta": {"k": 1}}, "meta.k", "in quotes"),
    ({"meta": {"k": "a\x00"}}, "meta.k", "control character"),
    ({"meta": {"k": "\udcff"}}, "meta.k", "surrogate"),
    ({"meta": []}, "meta", "mapping"),
    ({"config_drive": "yes"}, "config_drive", "true or false"),
    ({"title": "a\nb"}, "title", "control character"),
    ({"title": "x" * 10_000}, "title", "at most 255"),
    ({"admin_password": "a\nbcd"}, "admin_password", "control character"),
    ({"admin_password": "abc"}, "admin_password", "4 to 255"),
    ({"files": [{"path": "etc/x", "content": ""}]}, "files[0].path", "absolute"),
    ({"files": [{"path": "/etc/../x", "content": ""}]}, "files[0].path", "absolute"),
    ({"files": [{"path": "/etc/x", "content": "*"}]}, "files[0].content", "base64"),
    ({"files": [{"path": "/etc/x", "content": ""}] * 2}, "files", "twice"),
    ({"files": [{"path": "/etc/x", "content": ""}, {"path": "/etc/x/y", "content": ""}]}, "files", "a directory"),
    ({"launch_index": -1}, "launch_index", "at least 0"),
    ({"launch_index": 1000}, "launch_index", "less than 1000"),
    ({"launch_index": 1, "max_count": 2}, "launch_index", "each of several"),
    ({"min_count": 0}, "min_count", "at least 1"),
    ({"min_count": 3, "max_count": 2}, "max_count", "at least min_count"),
    ({"max_count": 1001}, "max_count", "at most 1000"),
    ({"max_count": 2, "networks": [{"network": "a", "address": "10.0.0.1"}]}, "networks", "single instance"),
    ({"max_count": 2, "name": "x" * 62}, "name", "at most 61"),
    ({"ephemeral_gib": [0]}, "ephemeral_gib[0].size", "at least 1"),
    ({"ephemeral_gib": [{"size": 1, "fs": "ntfs"}]}, "ephemeral_gib[0].fs", "ext4"),
    ({"ephemeral_gib": [1] * 17}, "ephemeral_gib", "at most 16"),
    ({"swap_mib": -1}, "swap_mib", "at least 0"),
    ({"swap_mib": 2**21}, "swap_mib", "at most"),
    ({"colour": "blue"}, "colour", "not a field"),
    ({"a\nb" + "c" * 1000: "blue"}, None, "not a field"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "reason"), BAD_FIELDS)
def test_a_wrong_field_is_named_with_the_reason(fields: dict[str, Any], field: str | None, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        spawn(**fields)
    assert field is None or caught.value.field == field
    assert one_short_line(str(caught.value))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest, match="image: is required"):
        SpawnRequest(name="web1", flavor="small")


def test_a_wrong_password_is_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        spawn(admin_password="sesame\x00open")
    assert "sesame" not in str(caught.value)


def test_user_data_of_exactly_the_limit_is_accepted() -> None:
    data = b"x" * USER_DATA_LIMIT
    assert spawn(user_data=base64.b64encode(data).decode()).user_data == data


def test_addresses_are_stored_in_their_canonical_form() -> None:
    networks = spawn(networks=[{"network": "six", "address": "FD00:0::1"}]).networks
    assert networks[0].address == "fd00::1"


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_request_is_read_from_yaml_and_from_json(tmp_path: Path) -> None:
    yaml_file, json_file = tmp_path / "r.yaml", tmp_path / "r.json"
    yaml_file.write_text("kind: spawn\nname: web1\nimage: debian-12\nflavor: small\nuser_data: !!binary aGk=\n")
    json_file.write_text(json.dumps({**LEAST, "user_data": "aGk="}))
    assert SpawnRequest.from_file(yaml_file) == SpawnRequest.from_file(json_file) == spawn(user_data=b"hi")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name: [", "is not YAML or JSON at line 1"),
        (b"\xff\xfe\xfd", "is not YAML or JSON"),
        (b"", "must be a mapping"),
        (b"- a", "must be a mapping"),
        (b"1: a", "must be a mapping"),
        (b"kind: delete\nname: x", "must be 'spawn'"),
        (b"a: " + b"9" * 5000, "is not YAML or JSON"),
        (b"[" * 100_000, "is not YAML or JSON"),
        (b"#" * (5 * 2**20), "larger than"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML or JSON"),
        (b"name: 2026-01-01\nimage: i\nflavor: f", "in quotes"),
    ],
)
def test_a_broken_request_file_is_one_clear_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "request.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=reason) as caught:
        SpawnRequest.from_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/nonexistent/x.yaml", "/proc/self", "a\0b", "x" * 10_000])
def test_an_unreadable_request_file_is_one_clear_line(path: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot read") as caught:
        SpawnRequest.from_file(path)
    assert one_short_line(str(caught.value))


# -- garbage ----------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=40),
    st.text(st.characters(codec=None), max_size=40), st.sampled_from([*BAD_NAMES, KEY, "web1", "10.0.0.1", "/etc/x"]),
)  # fmt: skip
FIELDS = st.sampled_from([*SpawnRequest.model_fields, "network", "address", "path", "content", "kind", "x\ny"])
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(FIELDS | SCALARS, v, max_size=4), max_leaves=8
)


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(VALUES, st.dictionaries(FIELDS, VALUES), st.dictionaries(FIELDS, VALUES).map(LEAST.__or__)))
@pytest.mark.parametrize("cls", [SpawnRequest, DeleteRequest])
def test_garbage_is_either_a_valid_request_or_one_clear_error(cls: type[Request], data: object) -> None:
    refusal = None
    try:
        request = cls.parse(data)
    except InvalidRequest as error:
        refusal = error
    if refusal is not None:
        assert one_short_line(str(refusal))
    else:
        plain = json.loads(json.dumps(request.to_plain()))
        assert cls.from_plain(plain, request.secrets()).to_plain() == request.to_plain()


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_a_file_of_garbage_is_one_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest):
        SpawnRequest.from_file(path)


def one_short_line(text: str) -> bool:
    return text.isprintable() and len(text) < 400 and bool(text.encode())
