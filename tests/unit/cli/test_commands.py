"""Commands that change or read something directly: images, flavors, networks, quotas, database, configuration."""

from __future__ import annotations

import argparse
import base64
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtflow.cli import host_checks
from virtflow.cli.commands import TABLE
from virtflow.cli.console import start_of_last_lines
from virtflow.cli.finding import OK
from virtflow.cli.main import Virtflow
from virtflow.cli.spawn import Spawn, build_request
from virtflow.config import load
from virtflow.errors import InvalidRequest
from virtflow.requests import SpawnRequest

Cli = Callable[..., Any]
KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode()


# -- the request ------------------------------------------------------------------------------------------------------


def request_of(*argv: str) -> SpawnRequest:
    app = Virtflow(io.StringIO(), io.StringIO())
    parser = Spawn(app, argparse.Namespace(), cmd_name="spawn").get_parser("virtflow spawn")
    return build_request(parser.parse_args(argv))


def test_every_option_of_spawn_reaches_the_request(tmp_path: Path) -> None:
    for name, content in {"k.pub": f"# mine\n{KEY}\n", "ud": "#cloud-config\n", "pw": "hunter22\n", "f": "hi"}.items():
        (tmp_path / name).write_text(content)
    request = request_of(
        *("web1", "--image", "debian-12", "--vcpus", "2", "--memory", "512", "--disk", "10"),
        *("--network", "blue,ip=10.0.0.9", "--network", "red", "--ssh-key", f"{tmp_path}/k.pub"),
        *("--user-data", f"{tmp_path}/ud", "--meta", "role=web", "--meta", "a=b=c", "--file", f"/etc/x={tmp_path}/f"),
        *("--admin-password-file", f"{tmp_path}/pw", "--no-config-drive", "--availability-zone", "az1", "--title", "t"),
        *("--host", "node7.example.org"),
        *("--ephemeral", "1", "--swap", "64", "--server-group", "spread", "--count", "1", "--volume", "v1"),
    )
    assert request == SpawnRequest(
        name="web1", image="debian-12", vcpus=2, memory_mib=512, disk_gib=10, ssh_keys=[KEY],
        networks=[{"network": "blue", "address": "10.0.0.9"}, {"network": "red"}], user_data=b"#cloud-config\n",
        meta={"role": "web", "a": "b=c"}, files=[{"path": "/etc/x", "content": b"hi"}], admin_password="hunter22",
        config_drive=False, availability_zone="az1", host="node7.example.org", title="t", ephemeral_gib=[1],
        swap_mib=64, server_group="spread", min_count=1, max_count=1, volumes=["v1"],
    )  # fmt: skip
    fields = set(SpawnRequest.model_fields) - {"flavor", "boot_volume", "boot_volume_gib", "delete_volume"}
    assert all(getattr(request, field) not in (None, [], {}) for field in fields)


def test_a_volume_to_boot_from_is_made_of_the_image_and_goes_with_the_instance() -> None:
    size = ("--vcpus", "1", "--memory", "64", "--boot-from-image-size", "3", "--delete-volume")
    request = request_of("web1", "--image", "debian-12", *size)
    assert (request.image, request.boot_volume_gib, request.delete_volume) == ("debian-12", 3, True)
    with pytest.raises(InvalidRequest, match=r"^disk_gib: cannot be combined with a volume"):
        request_of("web1", "--image", "debian-12", *size, "--disk", "1")
    with pytest.raises(InvalidRequest, match=r"^image: is required"):
        request_of("web1", *size)
    with pytest.raises(InvalidRequest, match=r"^delete_volume: is about a volume to boot from"):
        request_of("web1", "--image", "debian-12", "--flavor", "small", "--delete-volume")


def test_options_override_the_request_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: web1\nimage: debian-12\nflavor: small\nmeta: {role: web}\n")
    assert request_of("-r", str(path)).flavor == "small"
    request = request_of("web2", "-r", str(path), "--vcpus", "1", "--memory", "64", "--disk", "1")
    assert (request.name, request.image, request.flavor, request.vcpus) == ("web2", "debian-12", None, 1)
    path.write_text("name: web1\nimage: debian-12\nvcpus: 1\nmemory_mib: 64\ndisk_gib: 1\n")
    assert request_of("-r", str(path), "--flavor", "small").vcpus is None


@pytest.mark.parametrize(
    ("option", "field"),
    [("--ssh-key", "ssh_keys"), ("--user-data", "user_data"), ("--admin-password-file", "admin_password")],
)
def test_an_unreadable_file_names_the_field_and_the_file(option: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: cannot read /nonexistent"):
        request_of("web1", "--image", "i", "--flavor", "f", option, "/nonexistent")


def test_user_data_over_64_kib_and_keys_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 65537)
    with pytest.raises(InvalidRequest, match=r"user_data: .* larger than 65536 bytes"):
        request_of("web1", "--image", "i", "--flavor", "f", "--user-data", str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="ssh_keys"):
        request_of("web1", "--image", "i", "--flavor", "f", "--ssh-key", str(path))


# -- images, flavors, networks, quotas --------------------------------------------------------------------------------


def test_an_image_is_added_shown_and_removed(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "tiny.raw"
    path.write_bytes(bytes(1 << 20))
    added = cli("image", "add", "tiny", str(path), "--disk-format", "raw", "--property", "os=none", "-f", "json")
    assert added.code == 0, added.err
    assert json.loads(added.out)["virtual_size"] == 1 << 20
    assert cli("image", "list", "-f", "value", "-c", "name").out == "tiny\n"
    assert json.loads(cli("image", "show", "tiny", "-f", "json").out) == json.loads(added.out)
    assert cli("image", "add", "tiny", str(path), "--disk-format", "raw").code == 4
    assert cli("image", "remove", "tiny").code == 0
    assert cli("image", "remove", "tiny").code == 3


def test_a_file_that_is_no_image_of_its_format_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello" * 1000)
    answer = cli("image", "add", "x", str(path))
    assert answer.code == 4
    assert answer.err.startswith("virtflow: error: image 'x' refused: ")


def test_glances_images_cannot_be_changed_here(cli: Cli) -> None:
    answer = cli("--set", "images.source=glance", "image", "remove", "x")
    assert answer.code == 4
    assert "Glance" in answer.err


@pytest.mark.usefixtures("database")
def test_a_flavor_lives_from_create_to_delete(cli: Cli) -> None:
    create = ("flavor", "create", "small", "--vcpus", "1", "--memory", "64", "--disk", "1", "--property", "a=b")
    assert cli(*create).code == 0
    assert cli(*create).code == 4
    assert json.loads(cli("flavor", "show", "small", "-f", "json").out)["properties"] == {"a": "b"}
    assert cli("flavor", "delete", "small").code == 0
    assert cli("flavor", "show", "small").code == 3


@pytest.mark.usefixtures("database")
def test_a_network_gets_a_bridge_of_its_own_unless_one_is_named(cli: Cli) -> None:
    create = ("network", "create", "-f", "json")
    own = json.loads(cli(*create, "blue", "--cidr", "10.0.0.0/24", "--gateway", "10.0.0.1").out)
    assert own["managed_bridge"] is True
    assert len(own["bridge"]) <= 15
    named = json.loads(
        cli(*create, "lan", "--cidr", "10.1.0.0/24", "--bridge", "br0", "--pool", "10.1.0.5-10.1.0.9").out
    )
    assert (named["managed_bridge"], named["bridge"], named["allocation_end"]) == (False, "br0", "10.1.0.9")
    assert cli("network", "delete", "blue").code == 0
    assert cli("network", "list", "-f", "value", "-c", "name").out == "lan\n"


@pytest.mark.usefixtures("seeded")
def test_a_network_with_ports_is_not_deleted(cli: Cli) -> None:
    assert cli("network", "delete", "blue").code == 4


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--cidr", "10.0.0.0/33"], "cidr"),
        (["--cidr", "hello"], "cidr"),
        (["--cidr", "10.0.0.0/24", "--gateway", "10.9.0.1"], "gateway"),
        (["--cidr", "10.0.0.0/24", "--gateway", "x"], "gateway"),
        (["--cidr", "10.0.0.0/24", "--dns", "dns.example"], "dns"),
        (["--cidr", "10.0.0.0/24", "--pool", "10.0.0.9"], "pool"),
        (["--cidr", "10.0.0.0/24", "--pool", "10.0.0.9-10.0.0.5"], "allocation_end"),
        (["--cidr", "10.0.0.0/24", "--bridge", "a/b"], "bridge"),
        (["--cidr", "10.0.0.0/24", "--bridge", "x" * 16], "bridge"),
        (["--cidr", "10.0.0.0/24", "--mtu", "1"], "--mtu"),
    ],
)
def test_a_wrong_network_names_the_field(cli: Cli, options: list[str], field: str) -> None:
    answer = cli("network", "create", "blue", *options)
    assert answer.code == 2, answer.err
    assert f"{field}: " in answer.err
    assert cli("network", "list", "-f", "json").out == "[]\n"


@pytest.mark.usefixtures("database")
def test_quotas_are_set_and_set_back(cli: Cli) -> None:
    limits = ("quota", "show", "customers", "-f", "value", "-c", "limit")
    defaults = cli(*limits).out
    assert cli("quota", "create", "customers").code == 2
    assert cli("quota", "create", "customers", "--instances", "3", "--vcpus", "-1").code == 0
    assert cli(*limits).out.splitlines()[:2] == ["3", "-1"]
    assert cli("quota", "delete", "customers").code == 0
    assert cli(*limits).out == defaults


# -- console ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("seeded")
def test_the_console_log_is_printed_whole_or_its_last_lines(cli: Cli, state_dir: Path) -> None:
    path = state_dir / "instances" / "aaaaaaaa-0000-4000-8000-000000000001" / "console.log"
    assert cli("instance", "console", "web1").code == 3
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\r\ntwo\r\n\x1b[31mthree\xff\r\n")
    assert cli("instance", "console", "web1").out == "one\ntwo\n\x1b[31mthree\ufffd\n"
    assert cli("instance", "console", "web1", "--lines", "1").out == "\x1b[31mthree\ufffd\n"


@pytest.mark.usefixtures("seeded")
def test_on_a_terminal_the_console_log_has_no_control_characters(cli: Cli, state_dir: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = state_dir / "instances" / "aaaaaaaa-0000-4000-8000-000000000001" / "console.log"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x1b]0;owned\x07login:\t\n")
    assert cli("instance", "console", "web1", out=Terminal()).out == "]0;ownedlogin:\t\n"


@pytest.mark.parametrize(
    ("content", "count", "rest"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 9, b"a\nb\n"),
        (b"x" * 200_000 + b"\n" + b"y" * 200_000 + b"\nz\n", 2, b"y" * 200_000 + b"\nz\n"),
    ],
)
def test_the_last_lines_are_found_from_the_end(content: bytes, count: int, rest: bytes) -> None:
    assert content[start_of_last_lines(io.BytesIO(content), count) :] == rest


# -- database, configuration ------------------------------------------------------------------------------------------


def test_the_first_command_makes_the_database(cli: Cli, state_dir: Path) -> None:
    assert cli("operation", "list").code == 0
    assert (state_dir / "virtflow.db").stat().st_mode & 0o777 == 0o600


def test_db_check_fails_where_db_upgrade_is_needed(cli: Cli) -> None:
    missing = cli("db", "check")
    assert missing.code == 1
    assert "virtflow db upgrade" in missing.err
    assert cli("db", "upgrade").code == 0
    assert cli("db", "check").code == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("sqlite:////proc/nothing/v.db", 4),
        ("oracle://u:sesame@x", 2),
        ("postgresql://u:sesame@127.0.0.1:1/x", 1),
        ("x", 2),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line_without_its_password(cli: Cli, url: str, code: int) -> None:
    answer = cli("--set", f"database.url={url}", "operation", "list")
    assert answer.code == code, answer.err
    assert answer.err.count("\n") == 1
    assert "sesame" not in answer.err


def test_a_database_that_is_none_is_one_line(cli: Cli, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "virtflow.db").write_text("hello, this is not a database at all" * 100)
    answer = cli("operation", "list")
    assert answer.code == 1
    assert answer.err.startswith("virtflow: error: database ")
    assert answer.err.count("\n") == 1


def test_config_show_masks_secrets_and_tells_origins(
    cli: Cli, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTFLOW_GLANCE__PASSWORD", "sesame")
    url = "postgresql+psycopg://me:sesame@db/virtflow"
    answer = cli("--set", f"database.url={url}", "config", "show", "--origin", "-f", "json")
    assert "sesame" not in answer.out
    rows = {(row["group"], row["option"]): (row["value"], row["origin"]) for row in json.loads(answer.out)}
    assert rows["glance", "password"] == ("***", "environment")
    assert rows["database", "url"] == ("postgresql+psycopg://me:***@db/virtflow", "command line")
    assert rows["DEFAULT", "state_dir"] == (str(state_dir), "command line")
    assert rows["engine", "threads"] == (8, "default")


def test_a_log_file_that_cannot_be_written_is_a_configuration_error(cli: Cli) -> None:
    answer = cli("--log-file", "/proc/nothing", "config", "show")
    assert answer.code == 2
    assert "[DEFAULT] log_file" in answer.err


# -- doctor, completion -----------------------------------------------------------------------------------------------


def test_doctor_says_what_is_missing_and_what_mends_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.host_checks.CHECKS", (host_checks.qemu_img, host_checks.writable))
    assert cli("doctor").code == 0
    monkeypatch.setenv("PATH", "/nonexistent")
    answer = cli("doctor", "-f", "json")
    assert answer.code == 1
    assert json.loads(answer.out)[0] == {
        "check": "qemu-img",
        "status": "MISSING",
        "detail": "qemu-img is not installed",
        "fix": "apt-get install qemu-utils",
    }


@pytest.mark.parametrize(
    ("settings", "found", "lacking"),
    [
        ((), "built in process", "built in process"),
        (("config_drive.format=vfat",), "/mcopy", "mkfs.vfat is not installed"),
        (("config_drive.mkisofs_cmd=genisoimage",), "/genisoimage", "genisoimage is not installed"),
    ],
)
def test_doctor_looks_for_what_config_drives_are_made_with(
    settings: tuple[str, ...], found: str, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(overrides=dict(each.split("=") for each in settings), env={})
    monkeypatch.setattr("virtflow.cli.host_checks.shutil.which", lambda name: f"/bin/{name}")
    assert host_checks.mkisofs(config).detail.endswith(found)
    monkeypatch.setattr("virtflow.cli.host_checks.shutil.which", lambda _name: None)
    assert host_checks.mkisofs(config).detail == lacking


def test_doctor_looks_for_what_injection_needs_only_when_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.host_checks.shutil.which", lambda _name: None)
    assert host_checks.injection(load(overrides={}, env={})).status == OK
    on = load(overrides={"injection.partition": "-1"}, env={})
    assert host_checks.injection(on).fix == "apt-get install qemu-system-common"


def test_doctor_makes_no_database(cli: Cli, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.host_checks.CHECKS", (host_checks.database, host_checks.free_space))
    cli("doctor")
    assert not state_dir.exists()


def test_doctor_tells_of_a_database_of_another_schema(cli: Cli, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "virtflow.db").write_text("hello" * 1000)
    answer = cli("doctor", "-f", "json")
    found = {row["check"]: row["status"] for row in json.loads(answer.out)}
    assert found["database"] == "MISSING"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(cli: Cli, shell: str) -> None:
    answer = cli("completion", shell)
    assert answer.code == 0
    for name in TABLE:
        assert name.split()[-1] in answer.out
    assert "user-data" in answer.out


def complete(script: str, *words: str) -> list[str]:
    line = (
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _virtflow; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    quoted = line.replace("''", "''")
    done = subprocess.run(["bash", "-c", f"{script}\n{quoted}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")
def test_bash_completes_commands_verbs_and_options(cli: Cli) -> None:
    script = cli("completion", "bash").out
    assert complete(script, "virtflow", "op") == ["operation"]
    assert "retry-revert" in complete(script, "virtflow", "operation", "re")
    assert complete(script, "virtflow", "spawn", "web1", "--user") == ["--user-data"]
    assert complete(script, "virtflow", "operation", "list", "--ou") == ["--outcome"]
