"""From a problem and an answer to a program to grade, one function per benchmark."""

import ast
import builtins
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mtp_harness.data.python_source import parse
from mtp_harness.sandbox import Limits, Program
from mtp_harness.scoring.answers import below, code_of

Doc = Mapping[str, Any]

# What the original grader of APPS puts in front of a program, less numpy.
_APPS_NAMES = """\
import collections, fractions, heapq, itertools, math, random, sys, time
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from functools import lru_cache
from heapq import *
from itertools import accumulate, combinations, permutations, product
from math import ceil, cos, exp, fabs, floor, gcd, log, log2, sin, sqrt, tan
from typing import List, Tuple
"""
_APPS_STREAMS = "stdin, stdout = sys.stdin, sys.stdout\n"

# Arguments and results of calls in APPS are JSON, which has no tuples, and text for keys only: the
# original grader makes the keys of a first argument integers again where all of them are digits.
# Many results stand in a list of one.
_CALLS = """
import json, sys
sys.set_int_max_str_digits(0)
def keyed(value):
    try:
        return {int(key): item for key, item in value.items()}
    except (AttributeError, ValueError):
        return value
def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value
def check(candidate):
    for number, (arguments, expected) in enumerate(json.loads(TESTS), 1):
        given = list(arguments)
        given[:1] = map(keyed, given[:1])
        found = plain(candidate(*given))
        one = isinstance(expected, list) and len(expected) == 1
        assert found == expected or (one and found == expected[0]), f"call {number}"
"""


def humaneval(doc: Doc, answer: str) -> Program:
    """Return the prompt with its completion, or with the whole function of an instruct model."""
    return Program(
        # With its docstring alone the prompt's function is complete: a whole one may follow it.
        code=below(doc["prompt"], code_of(answer, doc["entry_point"])),
        entry_point=doc["entry_point"],
        test=doc["test"],
        preamble=doc["prompt"],
        name=doc["task_id"],
    )


def mbpp(doc: Doc, answer: str) -> Program:
    """Return the answer with the problem's asserts as its test."""
    source = "\n".join([doc["test_setup_code"], *doc["test_list"]])
    return Program(
        code=code_of(answer, doc["entry_point"]),
        entry_point=doc["entry_point"],
        test=check_of_statements(source),
        preamble=doc["imports"],
        name=f"MBPP/{doc['task_id']}",
        rule="objects" if doc["exports"] else "values",
        exports=doc["exports"],
    )


def apps(doc: Doc, answer: str) -> Program:
    """Return a script with its cases, or a function with the calls that test it."""
    function = doc["fn_name"]
    if not function:
        return script(doc, answer, _APPS_NAMES + _APPS_STREAMS)
    code = below(_APPS_NAMES, code_of(answer, function))
    if "class Solution" in code:
        code += f"\n{function} = Solution().{function}\n"
    test = f"TESTS = {doc['tests']!r}\n{_CALLS}"
    return Program(code=code, entry_point=function, test=test, name=doc["task_id"])


def script(doc: Doc, answer: str, front: str = "") -> Program:
    """Return the answer, below what is put in front of it, as a script with its cases."""
    cases = [(_text(given), _text(wanted)) for given, wanted in json.loads(doc["tests"])]
    code = below(front, code_of(answer))
    return Program(code=code, name=doc["task_id"], rule="stdio", cases=cases)


class Benchmark(NamedTuple):
    """How a benchmark's answers are graded."""

    program: Callable[[Doc, str], Program]
    limits: Limits


# Processor time is what ends a loop, so that a busy machine changes no verdict; the time in all is
# for what sleeps. One reference solution of MBPP needs 1.9 s of processor.
BENCHMARKS = {
    "humaneval": Benchmark(humaneval, Limits()),
    "mbpp": Benchmark(mbpp, Limits(wall_s=12.0, cpu_s=4)),
    "apps": Benchmark(apps, Limits(wall_s=12.0, cpu_s=4)),
    "codecontests": Benchmark(script, Limits(wall_s=30.0, cpu_s=10)),
}


def is_of_programs(task: str) -> bool:
    """Return whether a task's name starts with that of a benchmark of programs."""
    # Infilling asks for the middle of a program, which a prompt with its answer is not.
    return task.startswith(tuple(BENCHMARKS)) and "infilling" not in task


def benchmark_of(task: str) -> str:
    """Return the benchmark that a task name starts with."""
    if is_of_programs(task):
        return next(name for name in BENCHMARKS if task.startswith(name))
    raise ValueError(
        f"{task} is no benchmark of programs; expected a name that starts with "
        f"{', '.join(BENCHMARKS)}: give --task"
    )


def _text(value: object) -> str:
    """Return a case's text; some rows hold it as a list of lines."""
    return value if isinstance(value, str) else "\n".join(map(str, value))  # type: ignore[call-overload]


def check_of_statements(source: str) -> str:
    """Return a test that runs statements which call the program's functions by name."""
    return (
        f"_STATEMENTS = compile({source!r}, '<test>', 'exec', dont_inherit=True)\n"
        "def check(candidate):\n    exec(_STATEMENTS, globals())\n"
    )


def free_names(source: str) -> list[str]:
    """Return the names that statements use and neither define nor find among the builtins."""
    nodes = list(ast.walk(parse(source)))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not _loads(node)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name
    }
    bound |= {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and _loads(node))
    return [name for name in used if name not in bound and not hasattr(builtins, name)]


def _loads(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Load)
