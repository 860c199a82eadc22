"""The way to a command, and what becomes of errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from virtflow.cli.commands import TABLE, CommandTable
from virtflow.errors import NotFound
from virtflow.redaction import remember

Cli = Callable[..., Any]


def test_help_lists_every_command_with_one_line(cli: Cli) -> None:
    answer = cli("--help")
    assert answer.code == 0
    for name in TABLE:
        assert f"  {name} " in answer.out


@pytest.mark.parametrize("argv", [["help", "spawn"], ["--help", "spawn"], ["help", "operation", "show"]])
def test_help_of_a_command_shows_its_options_and_examples(cli: Cli, argv: list[str]) -> None:
    answer = cli(*argv)
    assert answer.code == 0
    assert "examples:" in answer.out


def test_help_of_a_group_lists_its_commands(cli: Cli) -> None:
    assert "virtflow operation retry-revert\n" in cli("help", "operation").out


def test_no_command_shows_the_help_on_stderr_as_a_usage_error(cli: Cli) -> None:
    answer = cli()
    assert (answer.code, answer.out) == (2, "")
    assert "usage: virtflow" in answer.err


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["flavr", "list"], "did you mean 'flavor'"),
        (["operation"], "operation show"),
        (["operation", "shwo"], "operation show"),
        (["xyzzy"], "virtflow --help"),
        (["--bogus"], "--bogus"),
        (["operation", "list", "--bogus"], "virtflow help operation list"),
        (["operation", "list", "--stat", "RUNNING"], "--stat"),
        (["operation", "list", "--limit", "many"], "whole number"),
        (["operation", "list", "--limit", "0"], "1 to 10000"),
        (["operation", "show"], "--last"),
        (["operation", "show", "1", "--last"], "--last"),
        (["--set", "x", "operation", "list"], "GROUP.OPTION=VALUE"),
        (["--set", "engine.threads=1", "operation", "list"], "[engine] threads"),
        (["--config-file", "/nonexistent", "operation", "list"], "/nonexistent"),
        (["flavor", "create", "small"], "--vcpus"),
        (["flavor", "create", "a/b", "--vcpus", "1", "--memory", "64", "--disk", "1"], "name: must be"),
        (["spawn"], "NAME"),
        (["spawn", "web1", "--image", "i", "--flavor", "f", "--network", "blue,mac=x"], "NETWORK,ip=ADDRESS"),
        (["spawn", "web1", "--image", "i", "--flavor", "f", "--meta", "x"], "KEY=VALUE"),
        (["spawn", "web1", "--image", "i", "--flavor", "f", "--no-wait", "--timeout", "3"], "not allowed with"),
        (["spawn", "x" * 10_000, "--image", "i", "--flavor", "f"], "at most 63"),
        (["spawn", "--", "-web1", "--image"], "unrecognized"),
        (["delete", "../x"], "name: must be"),
        (["instance", "console", "web1", "--lines", "-3"], "lines"),
        (["x" * 10_000], "not a command"),
        (["a\nb\x1b[31m"], "not a command"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(cli: Cli, argv: list[str], hint: str) -> None:
    answer = cli(*argv)
    assert (answer.code, answer.out) == (2, "")
    assert hint in answer.err
    assert answer.err.startswith("virtflow: error: ")
    assert answer.err.rstrip("\n").isprintable()
    assert len(answer.err) < 2100


def raising(error: BaseException) -> Any:
    def take_action(self: Any, parsed_args: Any) -> Any:
        raise error

    return take_action


def test_a_bug_is_one_line_that_says_how_to_see_more(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.configuration.Sample.take_action", raising(KeyError("x")))
    answer = cli("config", "sample")
    assert answer.code == 1
    assert answer.err == "virtflow: error: internal error: KeyError: 'x' (run again with --debug to see where)\n"


@pytest.mark.parametrize("argv", [["--debug", "config", "sample"], ["config", "sample", "--debug"]])
def test_debug_shows_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setattr("virtflow.cli.configuration.Sample.take_action", raising(KeyError("x")))
    assert "Traceback (most recent call last)" in cli(*argv).err


def test_a_value_error_of_ours_is_a_bug_not_a_usage_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.configuration.Sample.take_action", raising(ValueError("odd")))
    assert cli("config", "sample").code == 1


def test_ctrl_c_ends_a_command_quietly_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("virtflow.cli.configuration.Sample.take_action", raising(KeyboardInterrupt()))
    answer = cli("config", "sample")
    assert (answer.code, answer.err) == (130, "")


def test_an_error_has_no_control_characters_and_no_known_secret(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    error = NotFound(kind="image", name="x\x1b[31m\nsesame")
    monkeypatch.setattr("virtflow.cli.configuration.Sample.take_action", raising(error))
    remember("sesame")
    answer = cli("config", "sample")
    assert answer.code == 3
    assert "sesame" not in answer.err
    assert answer.err.rstrip("\n").isprintable()


def test_a_reader_that_has_gone_ends_the_program_quietly(state_dir: Path) -> None:
    command = f"{sys.executable} -m virtflow.cli.main config sample | true"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_warnings_about_the_configuration_go_to_stderr(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "v.conf"
    path.write_text("[engine]\nthread = 3\n")
    answer = cli("--config-file", str(path), "config", "show", "--group", "engine")
    assert answer.code == 0
    assert answer.err == f"virtflow: warning: {path}: [engine] thread: no such option\n"


def test_a_command_of_another_package_is_found_when_the_table_does_not_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Point:
        name = "backup_list"

        def load(self) -> type:
            return str

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point()] if group == "virtflow.cli" else [])
    assert CommandTable().find_command(["backup", "list", "x"]) == (str, "backup list", ["x"])


FORBIDDEN = "taskflow libvirt alembic pydantic rich lxml pyroute2 cryptography cmd2 sqlalchemy.orm"


def imported_by(*argv: str) -> set[str]:
    code = (
        "import sys, io; from virtflow.cli.main import Virtflow; "
        f"code = Virtflow(io.StringIO(), io.StringIO()).run({list(argv)!r}); "
        f"print(code, *(m for m in {FORBIDDEN!r}.split() + ['sqlalchemy', 'oslo_config'] if m in sys.modules))"
    )
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert words[0] == "0", words
    return set(words[1:])


def test_help_imports_neither_sqlalchemy_nor_oslo_config() -> None:
    assert imported_by("--help") == set()


@pytest.mark.usefixtures("seeded")
def test_listing_operations_imports_only_sqlalchemys_core(state_dir: Path) -> None:
    found = imported_by("--state-dir", str(state_dir), "operation", "list")
    assert found == {"sqlalchemy", "oslo_config"}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_importing_a_command_imports_nothing_heavy(name: str) -> None:
    assert imported_by("help", *name.split()) == set()
