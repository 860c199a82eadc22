"""What the configuration puts on every config drive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from virtflow.errors import ConfigurationError
from virtflow.metadata.drive_contents import DriveContents
from virtflow.metadata.instance_metadata import InjectedFile, InstanceMetadata
from virtflow.metadata.network_template import DEFAULT_TEMPLATE

MD = InstanceMetadata(uuid="u", name="n", hostname="n", project="p", random_seed=b"", user_data=b"x")


def test_both_trees_are_there() -> None:
    versions = {tuple(path.split("/")[:2]) for path in DriveContents().tree(MD)}
    assert {("ec2", "2009-04-04"), ("ec2", "latest"), ("ec2", "1.0"), ("openstack", "2018-08-27")} <= versions


def test_skipped_versions_are_missing_in_either_tree_and_latest_is_always_there() -> None:
    contents = DriveContents.load(("1.0", "2009-04-04", "2012-08-10"), None, None)
    versions = {path.split("/")[1] for path in contents.tree(MD)}
    assert not {"1.0", "2009-04-04", "2012-08-10"} & versions
    assert {"latest", "2008-09-01", "2018-08-27"} <= versions


@pytest.mark.parametrize("version", ["latest", "2009-04-05", ""])
def test_a_version_that_does_not_exist_cannot_be_skipped(version: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[config_drive\] skip_versions"):
        DriveContents.load((version,), None, None)


def test_the_network_is_content_0000_and_files_are_counted_after_it() -> None:
    md = InstanceMetadata(
        uuid="u",
        name="n",
        hostname="n",
        project="p",
        random_seed=b"",
        network_config=b"auto lo\n",
        files=(InjectedFile("/etc/x/motd", b"hi"),),
    )
    files = DriveContents().tree(md)
    assert files["openstack/content/0000"] == b"auto lo\n"
    assert files["openstack/content/0001"] == b"hi"
    document = json.loads(files["openstack/latest/meta_data.json"])
    assert document["network_config"] == {"name": "network_config", "content_path": "/content/0000"}
    assert document["files"] == [{"content_path": "/content/0001", "path": "/etc/x/motd"}]


def test_vendor_data_and_template_come_from_their_files(tmp_path: Path) -> None:
    (tmp_path / "vendor.json").write_text('{"cloud-init": "#cloud-config"}')
    (tmp_path / "template").write_text("%%\n$address\n")
    contents = DriveContents.load((), tmp_path / "vendor.json", tmp_path / "template")
    assert contents.vendor_data == {"cloud-init": "#cloud-config"}
    assert contents.network_template == "%%\n$address\n"
    assert DriveContents.load((), None, None).network_template == DEFAULT_TEMPLATE


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[1]", "not a JSON object"), (b"{", "not JSON"), (b"\xff", "not UTF-8"), (b" " * (1 << 21), "larger than")],
)
def test_vendor_data_that_is_no_json_object_is_a_mistake_of_the_configuration(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "vendor.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason):
        DriveContents.load((), tmp_path / "vendor.json", None)


def test_files_that_are_missing_or_wrong_name_their_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[config_drive\] vendor_data: cannot read"):
        DriveContents.load((), tmp_path / "none", None)
    (tmp_path / "template").write_text("%%\n$nonsense\n")
    with pytest.raises(ConfigurationError, match=r"\[config_drive\] network_template: .*nonsense"):
        DriveContents.load((), None, tmp_path / "template")
