"""The tool `calculate` of τ²-bench in bounded time: the same answers and the same errors, without `eval`.

tau2 answers with ``str(round(float(eval(expression)), 2))``, which never returns for ``9**9**9``. Here Python only
parses the expression; the arithmetic is done node by node, on integers of a bounded size.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_BITS", "MAX_LENGTH", "calculate"]

CHARACTERS = frozenset("0123456789+-*/(). ")
MAX_LENGTH = 10_000
"""Maximal length of an expression; tau2's own tasks need 41 characters."""
MAX_BITS = 2**14
"""Size above which an integer counts as infinite: a float ends at 2**10 bits, and Python reads up to 14,285 bits."""

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def calculate(expression: str) -> str:
    """Calculate the value of an arithmetic expression, rounded to two decimals and written as Python writes a float.

    Results and errors are tau2's, in type and text, with one exception: a power or product of more than `MAX_BITS` bits
    is "too large to convert to float" at once, even if a later part of the expression would reduce it.

    Args:
        expression: Digits, ``+ - * / ( ) .`` and blanks; ``**`` and ``//`` are Python's.

    Raises:
        ValueError: If there are other characters, or more than `MAX_LENGTH` characters.
        SyntaxError: If it is not an expression.
        ArithmeticError: If it has no value: a division by zero, or a number too large for a float.
        TypeError: If its value is not a real number: ``(-8)**(1/3)``, ``()``, ``2(3)``.
        RecursionError: If it is nested too deeply.

    >>> calculate("2 * (3 + 4) / 3")
    '4.67'
    """
    if not CHARACTERS.issuperset(expression):
        raise ValueError("Invalid characters in expression")
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"Expression too long: {len(expression)} characters, at most {MAX_LENGTH}")
    try:
        tree = ast.parse(expression.lstrip(" "), filename="<string>", mode="eval")
    except (MemoryError, RecursionError):
        # In both cases the parser's stack is full; `eval` raises this error.
        raise RecursionError("maximum recursion depth exceeded during compilation") from None
    return str(round(float(_value(tree.body)), 2))


def _value(root: ast.expr) -> Any:
    """Evaluate a tree without recursion, with operands from left to right, like Python."""
    values: list[Any] = []
    todo: list[tuple[ast.expr, bool]] = [(root, False)]
    while todo:
        node, operands_done = todo.pop()
        if isinstance(node, ast.Constant):
            values.append(node.value)
        elif not operands_done:
            todo.append((node, True))
            todo += [(operand, False) for operand in reversed(_operands(node))]
        elif isinstance(node, ast.BinOp):
            right = values.pop()
            values.append(_apply(type(node.op), values.pop(), right))
        elif isinstance(node, ast.UnaryOp):
            operand = values.pop()
            values.append(-operand if isinstance(node.op, ast.USub) else +operand)
        elif isinstance(node, ast.Call):
            called = values[-1 - len(node.args)]
            raise TypeError(f"{type(called).__name__!r} object is not callable")
        else:
            values.append(())  # only the empty tuple remains
    return values.pop()


def _operands(node: ast.expr) -> list[ast.expr]:
    """List the operands of a node, in the order of evaluation."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Call):
        return [node.func, *(arg.value if isinstance(arg, ast.Starred) else arg for arg in node.args)]
    return []


def _apply(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        bits = 0
        if kind is ast.Pow and right > 0:
            bits = (abs(left).bit_length() - 1) * right
        elif kind is ast.Mult:
            bits = left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise OverflowError("int too large to convert to float")
    return _OPERATORS[kind](left, right)
