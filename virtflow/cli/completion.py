"""``virtflow completion``: shell functions made from the command table and the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from virtflow.cli.command import Command

NAMES = {
    **dict.fromkeys(("delete", "resize", "migrate", "resize-confirm", "resize-revert"), "instance list"),
    "live-migrate": "instance list",
    "instance show": "instance list",
    "instance console": "instance list",
    "image show": "image list",
    "image remove": "image list",
    "flavor show": "flavor list",
    "flavor delete": "flavor list",
    "network show": "network list",
    "network delete": "network list",
    "server-group show": "server-group list",
    "server-group delete": "server-group list",
    "event vif-plugged": "instance list",
    **{f"host {verb}": "host list" for verb in ("show", "enable", "disable", "drain", "set")},
}
"""Commands whose argument is the name of something that another command lists."""
NUMBERS = ("show", "watch", "resume", "cancel", "undo", "retry-revert")
"""Of ``virtflow operation``: the argument is the number of an operation."""

BASH = """\
_virtflow() {
    local words cur="${COMP_WORDS[COMP_CWORD]}" first="${COMP_WORDS[1]}" second="${COMP_WORDS[2]}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="%(firsts)s"
    else
        case "$first $second" in
%(cases)s
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    [ -n "$words" ] || COMPREPLY=($(compgen -f -- "$cur"))
}
complete -o default -F _virtflow virtflow
"""

ZSH = """\
#compdef virtflow
autoload -U +X bashcompinit && bashcompinit
%s"""


class Completion(Command):
    """Print the completion script of a shell.

    Commands, options, and the names of instances, images, flavors, networks and operations are completed.
    """

    examples = (
        "virtflow completion bash > /etc/bash_completion.d/virtflow",
        'virtflow completion zsh > "${fpath[1]}/_virtflow"',
        "virtflow completion fish > ~/.config/fish/completions/virtflow.fish",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("shell", choices=("bash", "zsh", "fish"))
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        commands = dict(self._commands())
        if parsed_args.shell == "fish":
            text = fish(commands)
        else:
            text = bash(commands)
            text = ZSH % text if parsed_args.shell == "zsh" else text
        self.app.stdout.write(text)

    def _commands(self) -> Iterator[tuple[str, list[str]]]:
        """Every command with its options."""
        for name, entry in sorted(self.app.command_manager):
            parser = entry.load()(self.app, self.app_args, cmd_name=name).get_parser(f"virtflow {name}")
            shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
            yield name, [option for action in shown for option in action.option_strings if option.startswith("--")]


def listing(command: str) -> str:
    """The shell command that prints the names that can follow, or nothing."""
    if command in NAMES:
        return f"virtflow {NAMES[command]} -f value -c name 2>/dev/null"
    group, _, verb = command.partition(" ")
    if group == "operation" and verb in NUMBERS:
        return "virtflow operation list -f value -c number 2>/dev/null"
    return ""


def bash(commands: dict[str, list[str]]) -> str:
    """The bash function."""
    firsts = sorted({name.split()[0] for name in commands})
    cases = []
    for name, options in sorted(commands.items(), key=lambda item: -len(item[0].split())):
        words = " ".join(options)
        if listing(name):
            words += f" $({listing(name)})"
        pattern = f'"{name}"' if " " in name else f'"{name} "*'
        cases.append(f'        {pattern}) words="{words}" ;;')
    for first in firsts:
        verbs = [name.split()[1] for name in commands if name.startswith(f"{first} ")]
        if verbs:
            cases.append(f'        "{first} "*) words="{" ".join(verbs)}" ;;')
    return BASH % {"firsts": " ".join(firsts), "cases": "\n".join(cases)}


def fish(commands: dict[str, list[str]]) -> str:
    """The fish completions."""
    lines = ["complete -c virtflow -f"]
    for first in sorted({name.split()[0] for name in commands}):
        lines.append(f"complete -c virtflow -n __fish_use_subcommand -a {first}")
    for name, options in sorted(commands.items()):
        first, _, second = name.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            lines.append(f"complete -c virtflow -n '{seen}' -a {second}")
            seen += f"; and __fish_seen_subcommand_from {second}"
        lines += [f"complete -c virtflow -n '{seen}' -l {option.removeprefix('--')}" for option in options]
        if listing(name):
            lines.append(f"complete -c virtflow -n '{seen}' -a '({listing(name)})'")
    return "\n".join(lines) + "\n"
