"""The grader's input and output: limits, programs, verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Outcome = Literal["pass", "fail", "error"]
"""`error` is the grader's own failure: it is counted and shown, never scored as 0."""

Mechanism = Literal["namespaces", "bubblewrap", "process"]
"""What isolates programs. `process` isolates nothing: an ordinary process with resource limits."""

MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)
NOBODY = 65534

FAIL_KINDS = (
    "wrong_answer",
    "exception",
    "timeout",
    "memory",
    "output",
    "no_entry_point",
    "syntax",
    "not_judgeable",
)
"""`not_judgeable`: the test needs an object of the program that cannot be copied to the grader."""


class NoNamespaces(RuntimeError):
    """This machine does not allow the namespaces; the text says which call failed."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program.

    Processor time ends a loop, so that a busy machine changes no verdict; wall time ends programs
    that sleep.

    Args:
        wall_s: Seconds from the program's first line to the end of its check; startup excluded.
        cpu_s: Processor seconds of each process.
        memory_bytes: Address space of each process.
        file_bytes: Size of one file, and of the program's folder as a whole.
        processes: Processes and threads, the program itself included.
        open_files: Of each process.
        output_bytes: Size of one returned value on its way to the grader, as JSON. What a program
            prints is discarded.
    """

    wall_s: float = 9.0
    cpu_s: int = 3
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 16 * 2**20
    processes: int = 4
    open_files: int = 64
    output_bytes: int = 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value} but a limit must be above 0")
        if self.wall_s < self.cpu_s:
            raise ValueError(
                f"wall_s={self.wall_s:g} is below cpu_s={self.cpu_s}, so that a busy machine would "
                f"change verdicts: choose wall_s={3 * self.cpu_s}, or a smaller cpu_s"
            )


Rule = Literal["values", "objects", "stdio"]
"""How a test meets its program.

- `values`: the test calls one function; arguments and results are copied.
- `objects`: also, objects that cannot be copied stay with the program and the test gets handles on
  them, and lists, dicts and sets among the arguments are updated with the program's changes.
- `stdio`: the program is run as a script, once per case in a separate process, and its standard
output
  is compared with the expected output, token by token and in order.
"""


@dataclass(frozen=True)
class Program:
    """One program to grade.

    Args:
        code: Untrusted source, complete: prompt and completion.
        entry_point: Name of the function in `code` that the check calls.
        test: Trusted source that defines `check(candidate)`. It runs in the grader and never
            reaches the process that runs `code`. Under the rule `values` arguments are copied: the
            test does not see the program's changes to them.
        preamble: Trusted source run before `test` in the same namespace, usually the prompt,
            for tests that call its helpers. `entry_point` then names the program's function.
        name: The program's name in messages.
        rule: How a test meets its program.
        exports: Further names of `code` that the test uses; under the rule `objects` only.
        cases: Pairs of input and expected output; under the rule `stdio` only.
    """

    code: str
    entry_point: str = ""
    test: str = ""
    preamble: str = ""
    name: str = ""
    rule: Rule = "values"
    exports: Sequence[str] = ()
    cases: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if self.exports and self.rule != "objects":
            raise ValueError(f"rule={self.rule!r} but only 'objects' can export {self.exports}")
        if bool(self.cases) != (self.rule == "stdio"):
            raise ValueError(
                f"rule={self.rule!r} with {len(self.cases)} cases: 'stdio' needs some, "
                "the other rules take none"
            )


class Verdict(NamedTuple):
    """The outcome of one program.

    `kind` is empty for `pass`, one of `FAIL_KINDS` for `fail`, and for `error` either `test` (the
    trusted source is at fault) or `grader` (the machinery is). `detail` is one bounded line. `rule`
    is the program's rule.
    """

    outcome: Outcome
    kind: str = ""
    detail: str = ""
    wall_s: float = 0.0
    rule: Rule = "values"


def one_line(text: str, length: int = 200) -> str:
    """Return `text` as one printable line of at most `length` characters.

    Programs write parts of it, which could otherwise put terminal escapes into a log.
    """
    head = text[: 4 * length]
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= length else line[: length - 1] + "…"
