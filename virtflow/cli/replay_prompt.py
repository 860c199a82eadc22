"""The person who is asked before a task, and after a failure, while an operation is stepped through for real."""
# ruff: noqa: ARG002 (cmd.Cmd gives every command its line)

from __future__ import annotations

import cmd
import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from virtflow.cli.progress import printable
from virtflow.cli.replay_play import shown
from virtflow.engine.stepping import Decision, Stop, Verb


class Prompt(cmd.Cmd):
    """The gate of a person: stops where asked for, and at every failure."""

    doc_header = "commands (help COMMAND tells more):"

    def __init__(
        self, out: TextIO, step: bool, breakpoints: Iterable[str], on_failure: str, given: TextIO | None = None
    ) -> None:
        interactive = given is None and sys.stdin.isatty()
        super().__init__(stdin=given, stdout=out)
        self.use_rawinput = interactive
        self._interactive = interactive
        self._step = step
        self._breakpoints = {name.lower() for name in breakpoints}
        self._on_failure = on_failure
        self._stop: Stop
        self._decision: Decision | None = None

    # -- what the engine asks

    def before(self, stop: Stop) -> Decision:
        """Asked before each task."""
        if stop.reverting or not (self._step or stop.task.lower() in self._breakpoints):
            return Decision(Verb.GO)
        return self._ask(stop, f"stopped before {stop.flow}/{stop.task}", Verb.LEAVE)

    def failed(self, stop: Stop) -> Decision:
        """Asked when a task has failed."""
        if self._on_failure != "ask":
            return Decision(Verb.LEAVE if self._on_failure == "keep" else Verb.REVERT)
        return self._ask(stop, f"{stop.flow}/{stop.task} failed: {printable(stop.failure or '', 500)}", Verb.LEAVE)

    def _ask(self, stop: Stop, title: str, at_the_end: Verb) -> Decision:
        self._stop, self._decision = stop, None
        self.prompt = f"({stop.task}{'!' if stop.failure else ''}) " if self._interactive else ""
        self._say(f"live      {title}")
        self.cmdloop()
        return self._decision or Decision(at_the_end)

    def _say(self, text: str) -> None:
        self.stdout.write(f"{text}\n")

    def _decide(self, verb: Verb, result: Any = None) -> bool:
        self._decision = Decision(verb, result)
        return True

    # -- what a person says

    def emptyline(self) -> bool:
        """Enter alone does nothing: here it would change the host."""
        return False

    def default(self, line: str) -> None:
        self._say(f"error: {printable(line.split(maxsplit=1)[0], 60)!r} is not a command; try help")

    def do_step(self, line: str) -> bool:
        """step: run this task, and stop before the next."""
        return self._only(before=True) and self._go(step=True)

    def do_continue(self, line: str) -> bool:
        """continue: run this task, and go on to the next breakpoint or failure."""
        return self._only(before=True) and self._go(step=False)

    def _go(self, *, step: bool) -> bool:
        self._step = step
        return self._decide(Verb.GO)

    def do_retry(self, line: str) -> bool:
        """retry: run the failed task once more."""
        return self._only(before=False) and self._decide(Verb.RETRY)

    def do_revert(self, line: str) -> bool:
        """revert: let the flow do about the failure what it would: take everything back, or try another way."""
        return self._only(before=False) and self._decide(Verb.REVERT)

    def do_skip(self, line: str) -> bool:
        """skip [RESULT]: do not run the task (any more); RESULT (JSON) is what it returned."""
        try:
            result = json.loads(line) if line.strip() else None
        except ValueError as error:
            self._say(f"error: RESULT is not JSON: {error}")
            return False
        return self._decide(Verb.SKIP, result)

    def do_leave(self, line: str) -> bool:
        """leave: leave everything as it is (HELD), to be gone on with later."""
        return self._decide(Verb.LEAVE)

    def do_break(self, line: str) -> None:
        """break TASK: stop before it too."""
        self._breakpoints.add(line.strip().lower())

    def do_where(self, line: str) -> None:
        """where: the tasks of this flow, and which could start now."""
        for name, state in self._stop.states.items():
            self._say(f"{'>' if name == self._stop.task else ' '} {name:<24} recorded  {state}")
        self._say(f"could start now: {', '.join(self._stop.due)}")

    def do_print(self, line: str) -> None:
        """print [NAME]: what the task is given, all of it or one argument."""
        wanted, given = line.strip(), self._stop.arguments
        if wanted and wanted not in given:
            named = printable(wanted, 60)
            self._say(f"error: {self._stop.task} is not given {named!r}, but {', '.join(given) or 'nothing'}")
        for name, value in given.items():
            if wanted in ("", name):
                self._say(f"recorded  {name} = {shown(value)}")

    def do_EOF(self, line: str) -> bool:  # noqa: N802 - cmd's name for the end of input
        """The end of input leaves the operation as it is."""
        return self.do_leave(line)

    def _only(self, *, before: bool) -> bool:
        if before == (self._stop.failure is None):
            return True
        words = "step, continue, skip or leave" if self._stop.failure is None else "retry, skip, revert or leave"
        self._say(f"error: here: {words}")
        return False

    do_s, do_c, do_w, do_p, do_quit, do_q = do_step, do_continue, do_where, do_print, do_leave, do_leave
