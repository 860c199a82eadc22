"""The metadata tree of OpenStack's config drive."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.errors import InvalidRequest
from virtflow.metadata.instance_metadata import USER_DATA_LIMIT, VERSIONS, InjectedFile, InstanceMetadata, tree

SEED = bytes(range(256)) * 2


def metadata(**more: Any) -> InstanceMetadata:
    given = {"uuid": "b7c1", "name": "web1", "hostname": "web1", "project": "demo", "random_seed": SEED}
    return InstanceMetadata(**{**given, **more})


def document(md: InstanceMetadata, path: str) -> Any:
    return json.loads(tree(md)[f"openstack/{path}"])


def names(md: InstanceMetadata, version: str) -> set[str]:
    prefix = f"openstack/{version}/"
    return {path.removeprefix(prefix) for path in tree(md) if path.startswith(prefix)}


def test_the_latest_meta_data_has_every_key() -> None:
    md = metadata(
        availability_zone="az1",
        launch_index=2,
        public_keys={"work": "ssh-ed25519 AAAA work", "home": "ssh-ed25519 BBBB home"},
        meta={"role": "web"},
        files=(InjectedFile("/etc/motd", b"hello"), InjectedFile("/root/.netrc", b"")),
        admin_password="s3cret",
    )
    assert document(md, "latest/meta_data.json") == {
        "uuid": "b7c1",
        "name": "web1",
        "hostname": "web1",
        "availability_zone": "az1",
        "launch_index": 2,
        "public_keys": {"home": "ssh-ed25519 BBBB home", "work": "ssh-ed25519 AAAA work"},
        "keys": [
            {"name": "home", "type": "ssh", "data": "ssh-ed25519 BBBB home"},
            {"name": "work", "type": "ssh", "data": "ssh-ed25519 AAAA work"},
        ],
        "meta": {"role": "web"},
        "files": [
            {"content_path": "/content/0000", "path": "/etc/motd"},
            {"content_path": "/content/0001", "path": "/root/.netrc"},
        ],
        "project_id": "demo",
        "random_seed": base64.b64encode(SEED).decode(),
        "devices": [],
        "admin_pass": "s3cret",
    }
    assert tree(md)["openstack/content/0000"] == b"hello"
    assert tree(md)["openstack/content/0001"] == b""


def test_every_version_and_latest_is_there() -> None:
    assert {path.split("/")[1] for path in tree(metadata())} == {*VERSIONS, "latest"}
    assert {path.split("/")[1] for path in tree(metadata(), ["2018-08-27"])} == {"2018-08-27", "latest"}


def test_a_version_has_only_what_it_knew() -> None:
    md = metadata(user_data=b"#!/bin/sh", vendor_data2={"static": {}})
    assert names(md, "2012-08-10") == {"meta_data.json", "user_data"}
    assert names(md, "2013-10-17") == {"meta_data.json", "user_data", "vendor_data.json"}
    assert names(md, "2015-10-15") == {"meta_data.json", "user_data", "vendor_data.json", "network_data.json"}
    assert names(md, "2016-10-06") == names(md, "latest") == names(md, "2015-10-15") | {"vendor_data2.json"}
    assert not {"random_seed", "project_id", "devices"} & document(md, "2012-08-10/meta_data.json").keys()
    assert "random_seed" in document(md, "2013-04-04/meta_data.json")
    assert "devices" not in document(md, "2015-10-15/meta_data.json")


def test_what_was_not_given_is_not_there() -> None:
    assert names(metadata(), "latest") == {"meta_data.json", "vendor_data.json", "network_data.json"}
    assert "admin_pass" not in document(metadata(), "latest/meta_data.json")


def test_the_ports_are_in_network_data() -> None:
    port = {"port_id": "p", "network_id": "n", "mac": "52:54:00:00:00:01", "tap": "vf1", "mtu": 1500, "addresses": []}
    assert document(metadata(vifs=[port]), "latest/network_data.json")["links"][0]["id"] == "vf1"


def test_the_same_metadata_is_the_same_tree_whatever_order_it_came_in() -> None:
    first = tree(metadata(meta={"a": "1", "b": "2"}, public_keys={"x": "1", "y": "2"}))
    second = tree(metadata(meta={"b": "2", "a": "1"}, public_keys={"y": "2", "x": "1"}))
    assert list(first.items()) == list(second.items())


def test_user_data_may_be_64_kib_and_not_a_byte_more() -> None:
    assert tree(metadata(user_data=b"x" * USER_DATA_LIMIT))["openstack/latest/user_data"] == b"x" * 65536
    with pytest.raises(InvalidRequest, match="65537") as caught:
        metadata(user_data=b"x" * (USER_DATA_LIMIT + 1))
    assert caught.value.field == "user_data"


@pytest.mark.parametrize(
    "path", ["", "etc/motd", "/", "/etc/", "/etc/../shadow", "/a\x00b", "/a\nb", "/\x1b[2J", "/" + "x" * 10_000]
)
def test_a_path_that_is_no_path_of_a_file_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        InjectedFile(path, b"")
    assert caught.value.field == "files"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_secrets_do_not_show_in_a_repr() -> None:
    md = metadata(
        user_data=b"the-password-1",
        admin_password="the-password-2",
        files=(InjectedFile("/k", b"the-password-3"),),
        random_seed=b"the-password-4",
        vendor_data={"key": "the-password-5"},
    )
    assert "the-password" not in repr(md)


@given(
    name=st.text(max_size=40),
    meta=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4),
    paths=st.lists(st.from_regex(r"\A(/[^/\x00-\x1f]{1,20}){1,3}\Z"), max_size=3),
)
def test_whatever_a_user_writes_the_tree_has_plain_names_and_gives_it_back(
    name: str, meta: dict[str, str], paths: list[str]
) -> None:
    try:
        files = tuple(InjectedFile(path, path.encode("utf-8", "replace")) for path in paths)
    except InvalidRequest:
        return
    md = metadata(name=name, meta=meta, files=files)
    assert all(re.fullmatch(r"openstack/[0-9a-z-]+/[0-9a-z_.]+", path) for path in tree(md))
    read = document(md, "latest/meta_data.json")
    assert (read["name"], read["meta"], [each["path"] for each in read["files"]]) == (name, meta, paths)


def test_text_that_utf8_cannot_carry_is_escaped_not_quoted_in_an_error() -> None:
    md = metadata(admin_password="\ud800secret")
    assert b'"\\ud800secret"' in tree(md)["openstack/latest/meta_data.json"]
