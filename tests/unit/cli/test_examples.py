"""Every command has examples, and they are right."""

from __future__ import annotations

import argparse
import io
import shlex

import pytest

from virtflow.cli.commands import TABLE
from virtflow.cli.main import Virtflow

APP = Virtflow(io.StringIO(), io.StringIO())


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_command_has_examples_that_its_parser_accepts(name: str) -> None:
    command = APP.command_manager.commands[name].load()
    assert command.examples, "no example"
    for example in command.examples:
        words = shlex.split(example.partition(" > ")[0])
        assert words[0] == "virtflow"
        cls, found, arguments = APP.command_manager.find_command(words[1:])
        assert (cls, found) == (command, name)
        cls(APP, argparse.Namespace(), cmd_name=name).get_parser(f"virtflow {name}").parse_args(arguments)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_command_and_every_option_says_what_it_is_for(name: str) -> None:
    command = APP.command_manager.commands[name].load()
    assert (command.__doc__ or "").strip().split("\n")[0].rstrip().endswith(".")
    parser = command(APP, argparse.Namespace(), cmd_name=name).get_parser(f"virtflow {name}")
    for action in parser._actions:
        assert action.help or action.choices, action
