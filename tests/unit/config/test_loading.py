from __future__ import annotations

import subprocess
import sys
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from virtflow.config import Config, load, sample
from virtflow.config.registry import groups, options
from virtflow.errors import ConfigurationError


def from_file(tmp_path: Path, text: str, **more: Any) -> Config:
    path = tmp_path / "virtflow.conf"
    path.write_text(text)
    return load([path], **{"env": {}, **more})


def test_defaults_follow_the_state_directory() -> None:
    config = load(env={"VIRTFLOW_STATE_DIR": "/srv/vf"})
    assert config.database.url == "sqlite:////srv/vf/virtflow.db"
    assert config.instances.path == Path("/srv/vf/instances")
    assert config.libvirt.uri == "qemu:///embed?root=/srv/vf/libvirt"
    assert config.libvirt.embed_root == Path("/srv/vf/libvirt")
    assert config.secrets.key_file == Path("/srv/vf/secret.key")


def test_every_default_is_within_its_bounds_and_of_its_declared_type() -> None:
    config = load(env={})
    for option in options():
        group = config if option.group == "DEFAULT" else getattr(config, option.group)
        value = getattr(group, option.name)
        assert (option.optional and value is None) or isinstance(value, option.type), option


def test_every_number_has_both_bounds_and_every_option_has_help() -> None:
    for option in options():
        assert len(option.spec.help) > 10, option
        assert option.spec.help.endswith("."), option
        if option.type in (int, float):
            assert option.spec.low is not None, option
            assert option.spec.high is not None, option


def test_every_field_of_a_group_is_an_option() -> None:
    for group, cls in groups().items():
        assert all("option" in field.metadata for field in fields(cls)), group
        assert typing.get_type_hints(Config)[group] is cls


def test_the_command_line_beats_the_environment_which_beats_a_file_which_beats_the_default(tmp_path: Path) -> None:
    text = "[engine]\nthreads = 3\nrevert_attempts = 4\nrevert_backoff = 5\n"
    env = {"VIRTFLOW_ENGINE__THREADS": "6", "VIRTFLOW_ENGINE__REVERT_ATTEMPTS": "7"}
    config = from_file(tmp_path, text, env=env, overrides={"engine.threads": 9})
    engine = config.engine
    assert (engine.threads, engine.revert_attempts, engine.revert_backoff, engine.progress_interval) == (9, 7, 5, 0.5)
    names = ("threads", "revert_attempts", "revert_backoff", "progress_interval")
    found = [config.origins()["engine", name] for name in names]
    assert found == ["command line", "environment", f"file:{tmp_path}/virtflow.conf", "default"]


def test_every_option_has_an_origin() -> None:
    assert set(load(env={}).origins()) == {(option.group, option.name) for option in options()}


def test_a_later_file_beats_an_earlier_one_and_a_directory_beats_both(tmp_path: Path) -> None:
    for name, text in {
        "a": "threads = 3\nrevert_attempts = 3\nrevert_backoff = 3",
        "b": "threads = 4\nrevert_attempts = 4",
        "d/x.conf": "threads = 5",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[engine]\n{text}\n")
    engine = load([tmp_path / "a", tmp_path / "b"], config_dirs=[tmp_path / "d"], env={}).engine
    assert (engine.threads, engine.revert_attempts, engine.revert_backoff) == (5, 4, 3)


@pytest.mark.parametrize("variable", ["VIRTFLOW_HOST", "VIRTFLOW_DEFAULT__HOST", "OS_DEFAULT__HOST"])
def test_an_option_of_the_default_group_has_three_names_in_the_environment(variable: str) -> None:
    assert load(env={variable: "kvm-03"}).host == "kvm-03"


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(env={"VIRTFLOW_ENGINE__THREADS": ""}).engine.threads == load(env={}).engine.threads


def test_the_users_own_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "virtflow" / "virtflow.conf"
    path.parent.mkdir()
    path.write_text("[engine]\nthreads = 5\n")
    assert load(env={"XDG_CONFIG_HOME": str(tmp_path)}).engine.threads == 5


def test_a_user_who_is_not_root_keeps_state_in_the_xdg_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load(env={"HOME": "/home/me"}).state_dir == Path("/home/me/.local/state/virtflow")
    assert load(env={"XDG_STATE_HOME": "/x"}).state_dir == Path("/x/virtflow")


def test_a_value_may_refer_to_another_option_and_a_doubled_dollar_is_a_dollar(tmp_path: Path) -> None:
    config = from_file(tmp_path, "[instances]\npath = ${images.catalog}/../i\n[glance]\npassword = a$$b\n")
    assert config.instances.path == config.state_dir / "i"
    assert config.glance.password == "a$b"


def test_a_state_directory_with_odd_characters_makes_a_valid_libvirt_uri() -> None:
    config = load(env={}, overrides={"state_dir": "/srv/a b&c"})
    assert config.libvirt.uri == "qemu:///embed?root=/srv/a%20b%26c/libvirt"
    assert config.libvirt.embed_root == Path("/srv/a b&c/libvirt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("engine.threads", "1"),
        ("engine.threads", "65"),
        ("engine.threads", "many"),
        ("engine.revert_backoff", "nan"),
        ("engine.revert_backoff", "inf"),
        ("libvirt.virt_type", "xen"),
        ("libvirt.disk_cache", "yes"),
        ("libvirt.uri", "localhost"),
        ("libvirt.machine", "q35,accel=kvm"),
        ("libvirt.cpu_model", "-x"),
        ("database.url", "virtflow.db"),
        ("images.source", "ftp"),
        ("config_drive.force", "perhaps"),
        ("quota.vcpus", "-2"),
        ("glance.endpoint", "glance:9292"),
        ("glance.password", "a\x00b"),
        ("host", "a/b"),
        ("host", "x\ny"),
        ("state_dir", ""),
        ("state_dir", "/x" * 5000),
        ("project_name", "$nothing"),
        ("project_name", "\ud800"),
        ("nothing", "1"),
        ("engine.nothing", "1"),
        ("nothing.threads", "1"),
    ],
)
def test_a_bad_value_is_one_line_that_names_group_and_option(key: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, overrides={key: value})
    group, _, name = key.rpartition(".")
    assert (caught.value.group, caught.value.option) == (group or "DEFAULT", name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_bad_value_in_a_file_or_the_environment_is_refused_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\[engine\] threads"):
        from_file(tmp_path, "[engine]\nthreads = lots\n")
    with pytest.raises(ConfigurationError, match=r"\[engine\] threads"):
        load(env={"VIRTFLOW_ENGINE__THREADS": "lots"})


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, overrides={"glance.password": "sesame\x00"})
    assert "sesame" not in str(caught.value)


def test_secrets_are_not_in_the_repr() -> None:
    config = load(env={}, overrides={"glance.password": "sesame", "database.url": "postgresql+psycopg://u:sesame@h/d"})
    assert "sesame" not in repr(config)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("database.url", "oracle://host/db", "a URL of sqlite, postgresql or mysql"),
        ("jobboard.url", "host:6379", "a board's URL"),
        ("notifications.transport_url", "rabbit", "a broker's URL"),
        ("resize.ports", "49300", "FIRST-LAST"),
        ("injection.mandatory", "disk", "key, network, metadata, files or admin_password"),
        ("host", "a/b", "a name"),
    ],
)
def test_who_gives_a_text_that_does_not_fit_is_told_what_would(key: str, value: str, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"does not look like {wanted}$"):
        load(env={}, overrides={key: value})


@pytest.mark.parametrize("text", ["[engine\n", "threads\n", "[engine]\n  = 3\n", "\xff\xfe"])
def test_a_file_that_cannot_be_parsed_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.conf"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match="config_file") as caught:
        load([path], env={})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["/nonexistent.conf", "/proc"])
def test_a_file_that_is_missing_or_no_file_is_one_clear_line(path: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot read {path}"):
        load([path], env={})


def test_a_missing_configuration_directory_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match="config_dir: cannot read /nonexistent"):
        load(config_dirs=["/nonexistent"], env={})


def test_settings_that_name_no_option_are_reported_not_refused(tmp_path: Path) -> None:
    config = from_file(tmp_path, "[engine]\nthread = 3\n", env={"VIRTFLOW_ENGINE__THREAD": "3"})
    assert [line.rpartition("/")[2] for line in config.warnings] == [
        "virtflow.conf: [engine] thread: no such option",
        "environment variable VIRTFLOW_ENGINE__THREAD: no such option",
    ]


def test_the_sample_file_names_every_option_and_changes_nothing(tmp_path: Path) -> None:
    text = sample()
    for option in options():
        assert f"#{option.name} =" in text
    assert from_file(tmp_path, text) == load(env={})


def test_importing_the_package_imports_no_oslo_config() -> None:
    code = "import sys, virtflow.config; sys.exit('oslo_config' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
