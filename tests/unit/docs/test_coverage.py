"""Every item of the coverage page is there once, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/coverage.md").read_text(encoding="utf-8")
ROWS = {int(number): rest for number, rest in re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.MULTILINE)}
TESTS = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_item_stands_there_once_and_in_order() -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_test_that_is_named_as_a_proof_exists(path: str, name: str) -> None:
    assert name in functions_of(path)


@pytest.mark.parametrize("number", ROWS)
def test_an_item_has_a_proof_or_is_said_not_to_apply(number: int) -> None:
    _expected, here, proof = ROWS[number].split("|")
    assert "::" in proof or here.strip().startswith("not applicable")
