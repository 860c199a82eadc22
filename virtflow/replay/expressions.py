"""Watch expressions: comparisons over names, and nothing that could be called or changed.

``StartDomain.state == "RUNNING" and StartDomain.attempt > 1``, ``spec.image.name``, ``vifs[0].address``,
``host in ["kvm-01", "kvm-02"]``. A name that is not there is None, and so is whatever is looked for in it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from virtflow.errors import InvalidRequest

_LONGEST = 500
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}


class Expression:
    """Parsed and checked when it is made: InvalidRequest for anything but names, values and comparisons."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        try:
            self._tree = ast.parse(self.text[: _LONGEST + 1], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _bad(self.text, "it is not an expression") from None
        if len(self.text) > _LONGEST:
            raise _bad(self.text, f"it is longer than {_LONGEST} characters")
        self._check(self._tree)

    def __str__(self) -> str:
        return self.text

    def value(self, names: Mapping[str, Any]) -> Any:
        """What it is, given these names. What cannot be compared is not equal, and not less or more either."""
        return self._value(self._tree, names)

    def _check(self, node: ast.AST) -> None:
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and not isinstance(each.value, str | int | float | bool | None):
                raise _bad(self.text, "only text, numbers, True, False and None are values")
            if not isinstance(each, _ALLOWED):
                raise _bad(self.text, f"{type(each).__name__.lower()} is not allowed")

    def _value(self, node: ast.AST, names: Mapping[str, Any]) -> Any:
        found: Any = None
        match node:
            case ast.Constant():
                found = node.value
            case ast.Name():
                found = names.get(node.id)
            case ast.Attribute():
                found = _part(self._value(node.value, names), node.attr)
            case ast.Subscript():
                found = _part(self._value(node.value, names), self._value(node.slice, names))
            case ast.List() | ast.Tuple():
                found = [self._value(each, names) for each in node.elts]
            case ast.UnaryOp():
                value = self._value(node.operand, names)
                found = (
                    not value if isinstance(node.op, ast.Not) else -value if isinstance(value, int | float) else None
                )
            case ast.BoolOp():
                found = self._either(node, names)
            case ast.Compare():
                found = self._compared(node, names)
        return found

    def _either(self, node: ast.BoolOp, names: Mapping[str, Any]) -> Any:
        value = None
        for each in node.values:
            value = self._value(each, names)
            if bool(value) == isinstance(node.op, ast.Or):
                break
        return value

    def _compared(self, node: ast.Compare, names: Mapping[str, Any]) -> bool:
        left = self._value(node.left, names)
        for comparison, other in zip(node.ops, node.comparators, strict=True):
            right = self._value(other, names)
            try:
                if not _COMPARE[type(comparison)](left, right):
                    return False
            except TypeError:
                return False
            left = right
        return True


_ALLOWED = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Load),
    *(ast.UnaryOp, ast.Not, ast.USub, ast.BoolOp, ast.And, ast.Or, ast.Compare, *_COMPARE),
)


def _part(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(key) if isinstance(key, str) else None
    if isinstance(value, list | tuple) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return None


def _bad(text: str, reason: str) -> InvalidRequest:
    return InvalidRequest(field=f"expression {text[:60]!r}", reason=reason)
