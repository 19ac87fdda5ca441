"""The benchmarks of programs, one record each, and how an answer becomes a program to grade.

A new benchmark is a loader in `mtp_harness.data`, an entry in `BENCHMARKS`, and a YAML whose class
is `code_task.CodeTask`. Its documents need a `task_id`; with reference `solutions` exact match is
scored, and `fn_name` or `entry_point` names the function that an answer should define.
"""

import ast
import builtins
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mtp_harness.data import apps as apps_data
from mtp_harness.data import codecontests as codecontests_data
from mtp_harness.data import humaneval as humaneval_data
from mtp_harness.data import mbpp as mbpp_data
from mtp_harness.data.python_source import parse
from mtp_harness.errors import UserError
from mtp_harness.sandbox import Limits, Program
from mtp_harness.scoring.answers import below, code_of

Doc = Mapping[str, Any]

# The names that the original grader of APPS defines before a program, without numpy.
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

# Arguments and results of calls in APPS are JSON, which has no tuples and only text as keys: the
# original grader turns the keys of a first argument into integers if all of them are digits. Many
# results are in a list with one element.
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
        # The prompt's function is complete with its docstring alone: a whole one may follow it.
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
    """Return a script or a function, after the names that the original grader defines."""
    if doc["fn_name"]:
        return function(doc, answer, _APPS_NAMES)
    return script(doc, answer, _APPS_NAMES + _APPS_STREAMS)


def function(doc: Doc, answer: str, front: str = "") -> Program:
    """Return the answer, after a preamble, with the calls that test it.

    `fn_name` is a function, or a method of `class Solution`.
    """
    name = doc["fn_name"]
    code = below(front, code_of(answer, name))
    if "class Solution" in code:
        code += f"\n{name} = Solution().{name}\n"
    test = f"TESTS = {doc['tests']!r}\n{_CALLS}"
    return Program(code=code, entry_point=name, test=test, name=doc["task_id"])


def script(doc: Doc, answer: str, front: str = "") -> Program:
    """Return the answer, after a preamble, as a script with its cases."""
    cases = [(_text(given), _text(wanted)) for given, wanted in json.loads(doc["tests"])]
    code = below(front, code_of(answer))
    return Program(code=code, name=doc["task_id"], rule="stdio", cases=cases)


class Benchmark(NamedTuple):
    """The definition of one benchmark.

    A document of the harness's own task lacks what `load` derives: `complete` adds it from the
    columns `given`.
    """

    load: Callable[..., Any]  # reads its documents: the `custom_dataset` of its YAML
    program: Callable[[Doc, str], Program]  # takes a document and an answer
    columns: tuple[str, ...]  # columns that `program` needs, in a samples file
    limits: Limits = Limits()  # of one program
    instruction: str = ""  # makes the prompt a question for an instruct model
    chat_stops: tuple[str, ...] = ()  # stop strings for an instruct model
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    given: tuple[str, ...] = ()


# Processor time ends a loop, so that a busy machine changes no verdict; wall time ends programs
# that sleep. One reference solution of MBPP needs 1.9 s of processor time.
BENCHMARKS = {
    "humaneval": Benchmark(
        humaneval_data.load,
        humaneval,
        ("task_id", "prompt", "entry_point", "test"),
        instruction="Complete the following Python function. Answer with the whole function, its "
        "imports included, in one fenced code block.\n\n```python\n{prompt}```",
    ),
    "mbpp": Benchmark(
        mbpp_data.load,
        mbpp,
        ("test_list", "test_setup_code", "imports"),
        Limits(wall_s=12.0, cpu_s=4),
        chat_stops=("[DONE]",),
        complete=mbpp_data.completed,
        given=mbpp_data.SOURCE.columns,
    ),
    "apps": Benchmark(
        apps_data.load, apps, ("task_id", "fn_name", "tests"), Limits(wall_s=12.0, cpu_s=4)
    ),
    "codecontests": Benchmark(
        codecontests_data.load, script, ("task_id", "tests"), Limits(wall_s=30.0, cpu_s=10)
    ),
}


def benchmark_read_by(config: Mapping[str, Any]) -> Benchmark:
    """Return the benchmark that a task's documents, or else its name, belong to."""
    load, task = config.get("custom_dataset"), str(config.get("task"))
    found = [known for known in BENCHMARKS.values() if known.load is load]
    found += [known for name, known in BENCHMARKS.items() if task.startswith(name)]
    if found:
        return found[0]
    raise UserError(
        f"{task}: neither its name nor its custom_dataset is that of a benchmark of programs "
        f"({', '.join(BENCHMARKS)}): add it to mtp_harness.scoring.programs.BENCHMARKS."
    )


def is_of_programs(task: str) -> bool:
    """Return whether a task's name starts with that of a benchmark of programs."""
    # Not for infilling tasks, which ask for the middle of a program.
    return task.startswith(tuple(BENCHMARKS)) and "infilling" not in task


def benchmark_of(task: str) -> str:
    """Return the benchmark that begins a task's name."""
    if is_of_programs(task):
        return next(name for name in BENCHMARKS if task.startswith(name))
    raise ValueError(
        f"{task} is not a benchmark of programs; expected a name that starts with "
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
    """Return the names that statements use, and neither define nor find among the builtins."""
    used, bound = dict[str, None](), set[str | None]()
    for node in ast.walk(parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used[name] = None
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef() | ast.ClassDef() | ast.ExceptHandler():
                bound.add(node.name)
            case ast.alias():
                bound.add((node.asname or node.name).split(".")[0])
    return [name for name in used if name not in bound and not hasattr(builtins, name)]
