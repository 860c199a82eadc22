"""What a person says before a task that is run for real, and what he is told."""

from __future__ import annotations

import io

import pytest

from virtflow.cli.replay_prompt import Prompt
from virtflow.engine.stepping import Decision, Stop, Verb

BEFORE = Stop(
    "41", "spawn.host", "StartDomain", ("StartDomain",), arguments={"instance_uuid": "u-1"}, states={"StartDomain": ""}
)
FAILED = Stop("41", "spawn.host", "StartDomain", ("StartDomain",), failure="no memory")


def talk(stop: Stop, words: str) -> tuple[Decision, str]:
    out = io.StringIO()
    prompt = Prompt(out, step=True, breakpoints=(), on_failure="ask", given=io.StringIO(words))
    return (prompt.failed if stop.failure else prompt.before)(stop), out.getvalue()


def test_what_the_task_is_given_is_printed_and_a_name_that_it_is_not_given_is_an_error() -> None:
    decision, told = talk(BEFORE, "print instance_uuid\nprint domain_xml\ncontinue\n")
    assert decision == Decision(Verb.GO)
    assert 'recorded  instance_uuid = "u-1"' in told
    assert "error: StartDomain is not given 'domain_xml', but instance_uuid" in told


@pytest.mark.parametrize(
    ("words", "decision"),
    [
        ("retry\n", Decision(Verb.RETRY)),
        ("revert\n", Decision(Verb.REVERT)),
        ('skip {"a": 1}\n', Decision(Verb.SKIP, {"a": 1})),
        ("step\n", Decision(Verb.LEAVE)),
        ("\n", Decision(Verb.LEAVE)),
    ],
)
def test_after_a_failure_only_what_makes_sense_is_done_and_the_end_of_input_leaves_it(
    words: str, decision: Decision
) -> None:
    found, told = talk(FAILED, words)
    assert found == decision
    assert "StartDomain failed: no memory" in told


def test_a_result_that_is_no_json_and_a_word_that_is_no_command_are_told() -> None:
    decision, told = talk(FAILED, "skip {\ndance\n")
    assert decision == Decision(Verb.LEAVE)
    assert "RESULT is not JSON" in told
    assert "'dance' is not a command" in told
