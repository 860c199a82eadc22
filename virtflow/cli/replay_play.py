"""``virtflow replay play``: a debugger over a recording. Nothing is executed, and nothing is changed."""

# ruff: noqa: ARG002 - each command of cmd's is given the rest of its line

from __future__ import annotations

import argparse
import cmd
import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from virtflow.cli.command import Command
from virtflow.cli.progress import duration, printable
from virtflow.cli.replay_source import add_recording, find_recording
from virtflow.cli.usage import UsageError
from virtflow.errors import VirtflowError

if TYPE_CHECKING:
    from virtflow.replay.player import Player
    from virtflow.replay.player_stage import TaskMoment
    from virtflow.replay.recording import Event

_MARKS = {"SUCCESS": "✓", "RUNNING": "▶", "FAILURE": "✗", "REVERTING": "◀", "REVERTED": "↩", "REVERT_FAILURE": "✗"}
_LONGEST = 4000


class Play(Command):
    """Play a recording: step through it in both directions, and see where today's code would decide differently.

    Reads commands from the terminal, or from standard input. Nothing is executed and nothing is changed.
    """

    examples = (
        "virtflow replay play 12",
        "virtflow replay play web1.vfrec",
        "virtflow replay play --last -c 'goto StartDomain; where'",
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_recording(parser)
        parser.add_argument("-c", "--commands", metavar="TEXT", help="run these commands, separated by ; and leave")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from virtflow.replay.player import Player

        player = Player(find_recording(self.context, parsed_args))
        given = None if parsed_args.commands is None else io.StringIO(parsed_args.commands)
        PlayLoop(player, self.app.stdout, interactive=given is None and sys.stdin.isatty(), commands=given).cmdloop()


class PlayLoop(cmd.Cmd):
    """The prompt. Several commands on a line are separated by ``;``."""

    doc_header = "commands (help COMMAND tells more):"

    def __init__(self, player: Player, out: TextIO, *, interactive: bool, commands: TextIO | None = None) -> None:
        super().__init__(stdin=commands, stdout=out)
        self.player = player
        self.use_rawinput = interactive
        self._interactive = interactive
        self._last: str | None = None

    # -- the loop

    def preloop(self) -> None:
        operation = self.player.recording.operation
        self._say(
            f"replaying operation {operation.number}: {operation.kind} {operation.target}, "
            f"{operation.outcome or operation.state} (recorded); {len(self.player.events)} events"
        )
        if operation.error:
            self._say(f"cause     recorded  {printable(operation.error, 300)}")
        self.do_divergences("")
        self._prompt()

    def postcmd(self, stop: bool, line: str) -> bool:
        self._prompt()
        return stop

    def onecmd(self, line: str) -> bool:
        """Every mistake is one line, and the prompt comes back."""
        stop = False
        for each in line.split(";") if line != "EOF" else [line]:
            try:
                stop = bool(super().onecmd(each.strip()))
            except VirtflowError as error:
                self._say(f"error: {printable(str(error), 300)}")
            if stop:
                break
        return stop

    def emptyline(self) -> bool:
        """Enter alone repeats a movement, as in gdb."""
        return self.onecmd(self._last) if self._interactive and self._last else False

    def default(self, line: str) -> None:
        self._say(f"error: {printable(line.split(maxsplit=1)[0], 60)!r} is not a command; try help")

    def _prompt(self) -> None:
        event = self.player.event
        place = "start" if event is None else event.atom or event.event.lower()
        attempt = f"#{event.attempt}" if event is not None and event.attempt > 1 else ""
        self.prompt = f"({self.player.recording.operation.number}:{place}{attempt}) " if self._interactive else ""

    def _say(self, text: str) -> None:
        self.stdout.write(f"{text}\n")

    def _moved(self, move: Callable[[], object], again: str | None = None) -> None:
        """Move, and show where that has led, with what is watched and where the code has parted on the way."""
        self._last = again
        parted, watched = len(self.player.parted), list(self.player.watched())
        move()
        self._say(event_line(self.player, self.player.position))
        for number, text, value in self.player.watched():
            if (number, text, value) not in watched:
                self._say(f"watch {number}   recorded  {text} = {shown(value)}")
        for each in self.player.parted[parted:]:
            self._say(f"diverges  derived   {each}")

    # -- moving

    def do_step(self, line: str) -> None:
        """step [N]: let the next event happen, or N events."""
        self._moved(lambda: self.player.step(_count(line)), "step")

    def do_next(self, line: str) -> None:
        """next [N]: to the next event of the same flow, over a segment."""

        def move() -> None:
            for _ in range(_count(line)):
                self.player.next()

        self._moved(move, "next")

    def do_back(self, line: str) -> None:
        """back [N]: one event back, or N events."""
        self._moved(lambda: self.player.back(_count(line)), "back")

    def do_goto(self, line: str) -> None:
        """goto TASK [STATE] | start | end | N: to the first start of a task (or into a state), or to event N."""
        words = _words(line, 1, 2, "goto TASK [STATE] | start | end | N")
        places = {"start": 0, "end": len(self.player.events)}
        if words[0] in places or words[0].isdecimal():
            place = places[words[0]] if words[0] in places else _number(words[0])
            self._moved(lambda: self.player.goto(place))
        else:
            self._moved(lambda: self.player.goto_task(*words))

    def do_until(self, line: str) -> None:
        """until TASK [STATE] | until EXPRESSION: on until a task starts (or is in a state), or something is true."""
        from virtflow.replay.expressions import Expression

        words = line.split()
        if words and len(words) <= 2 and all(word.replace("/", "").replace(".", "").isidentifier() for word in words):
            try:
                return self._moved(lambda: self.player.until(*words))
            except VirtflowError:
                if len(words) == 2 or "." not in line:
                    raise
        Expression(line)
        return self._moved(lambda: self.player.until_true(line))

    def do_continue(self, line: str) -> None:
        """continue: on to the next breakpoint, or to the end."""
        self._run(self.player.run)

    def do_rcontinue(self, line: str) -> None:
        """rcontinue: back to the last breakpoint, or to the start."""
        self._run(self.player.run_back)

    def _run(self, run: Callable[[], str]) -> None:
        reasons: list[str] = []
        self._moved(lambda: reasons.append(run()))
        self._say(f"stopped at {reasons[0]}")

    # -- breakpoints

    def do_break(self, line: str) -> None:
        """break [TASK [STATE] | STATE | event N | if EXPRESSION]: where continue stops; alone: list them."""
        words = line.split()
        if not words:
            for number, each in {**self.player.breakpoints, **self.player.watches}.items():
                self._say(f"{number:>3}  {'watch ' if number in self.player.watches else ''}{each}")
            return
        if words[0] == "if":
            made = self.player.break_if(line.partition("if")[2])
        elif words[0] == "event" and len(words) == 2:
            made = self.player.break_at(position=_number(words[1]))
        elif len(words) == 1 and words[0].isupper():
            made = self.player.break_at(event=words[0])
        else:
            task, state, *_ = [*_words(line, 1, 2, "break TASK [STATE]"), None]
            made = self.player.break_at(task, state)
        self._say(f"breakpoint {made.number}: {made}")

    def do_watch(self, line: str) -> None:
        """watch EXPRESSION: tell when its value changes, and stop there."""
        number = self.player.watch(line)
        self._say(f"watch {number}: {line.strip()} = {shown(self.player.value(line))}")

    def do_delete(self, line: str) -> None:
        """delete N: remove a breakpoint or a watch."""
        if not self.player.remove(_number(line)):
            self._say(f"error: there is no breakpoint {printable(line, 20)}")

    # -- looking

    def do_where(self, line: str) -> None:
        """where: every flow at this moment, and what today's code would do next."""
        player = self.player
        for flow in player.recording.flows:
            state = player.stage.flow_states.get(flow.uuid)
            if state is None:
                continue
            tasks = [player.stage.tasks[flow.uuid, node.name] for node in flow.graph.nodes]
            self._say(f"{flow.kind:<14} recorded  {state} on {flow.host or '?'}")
            self._say(f"{'':<14}           {' > '.join(_marked(moment, player) for moment in tasks)}")
        for flow_kind, task, way in player.due():
            self._say(f"{'next':<14} derived   {'run' if way == 'RUNNING' else 'revert'} {task} ({flow_kind})")

    def do_print(self, line: str) -> None:
        """print [TASK | EXPRESSION]: a task with its inputs and result, or the value of an expression."""
        reference = line.strip() or (self.player.event.atom if self.player.event else None) or ""
        if not reference:
            return self._say("error: print what? A task, or an expression over names")
        names = {atom.name.lower() for flow in self.player.recording.flows for atom in flow.atoms}
        if reference.rpartition("/")[2].lower() in names:
            return self._print_task(reference)
        return self._say(f"recorded  {shown(self.player.value(reference))}")

    do_p = do_print

    def _print_task(self, reference: str) -> None:
        flow, atom, moment = self.player.task(reference)
        attempt = f", attempt {moment.attempt}" if moment.attempt > 1 else ""
        self._say(f"recorded  {flow.kind}/{atom.name} {moment.state}{attempt} on {moment.host or 'no host yet'}")
        for name, value in self.player.arguments(f"{flow.uuid}/{atom.name}").items():
            self._say(f"derived   input {name} = {shown(value)}")
        if moment.result is not None:
            self._say(f"recorded  result = {shown(moment.result)}")
        if moment.error:
            self._say(f"recorded  error: {printable(moment.error, 500)}")

    def do_list(self, line: str) -> None:
        """list [N]: the N events around this one (10)."""
        around = _count(line or "10") // 2
        here = self.player.position
        for position in range(max(1, here - around), min(len(self.player.events), here + around) + 1):
            self._say(f"{'>' if position == here else ' '} {event_line(self.player, position)}")

    def do_divergences(self, line: str) -> None:
        """divergences: everywhere in the recording where today's code would decide differently."""
        found = self.player.divergences
        if not found:
            self._say("code      derived   today's code decides as recorded, from the first event to the last")
        for each in found:
            self._say(f"diverges  derived   at event {each.position + 1}: {each}")

    def do_quit(self, line: str) -> bool:
        """quit: leave. So does the end of input."""
        return True

    def do_EOF(self, line: str) -> bool:  # noqa: N802 - cmd's name for the end of input
        """The end of input."""
        if self._interactive:
            self._say("")
        return True

    do_s, do_n, do_b, do_c, do_rc, do_w, do_q = do_step, do_next, do_back, do_continue, do_rcontinue, do_where, do_quit


def event_line(player: Player, position: int) -> str:
    """An event in one line, by the name of its task; the time is since the first event."""
    if position == 0:
        return f"event 0 of {len(player.events)}: before everything"
    event: Event = player.events[position - 1]
    since = duration(max(0, event.at - player.events[0].at) / 1_000_000)
    who = player.recording.by_uuid[event.flow].kind
    what = f"{who}/{event.atom}" if event.atom else f"flow {who}"
    attempt = f" attempt {event.attempt}" if event.attempt > 1 else ""
    error = event.data["failure"].get("exception_str") if _failed(event) else None
    text = f"event {position} of {len(player.events)}  +{since}  recorded  {what} {event.event}{attempt}"
    return f"{text}: {printable(error, 200)}" if error else text


def _failed(event: Event) -> bool:
    return isinstance(event.data, Mapping) and isinstance(event.data.get("failure"), Mapping)


def shown(value: Any) -> str:
    """A value in one line, without control characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return printable(text, _LONGEST)


def _marked(moment: TaskMoment, player: Player) -> str:
    event = player.event
    mark = _MARKS.get(moment.state, "")
    text = f"{mark}{moment.name}"
    return f"[{text}]" if event is not None and event.atom == moment.name else text


def _words(line: str, least: int, most: int, usage: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    if not least <= len(words) <= most:
        raise UsageError(reason=f"usage: {usage}")
    return words


def _number(text: str) -> int:
    if not text.strip().isdecimal() or len(text) > 9:
        raise UsageError(reason=f"{printable(text, 40)!r} is not a whole number")
    return int(text)


def _count(line: str) -> int:
    return _number(line) if line.strip() else 1
