"""What goes into the grader and what comes out of it: limits, programs, verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Outcome = Literal["pass", "fail", "error"]
"""`error` is the grader's own failure: count and show it, never score it as 0."""

Mechanism = Literal["namespaces", "bubblewrap", "process"]
"""What keeps programs in. `process` isolates nothing: an ordinary process with resource limits."""

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
"""`not_judgeable`: the test needs of the program what cannot be copied to the grader."""


class NoNamespaces(RuntimeError):
    """This machine does not let us make the namespaces; the text says which call failed."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Processor time is what ends a loop, so that a busy machine changes no verdict; the time in all
    is for what sleeps.

    Args:
        wall_s: Seconds from the program's first line to the end of its check; startup excluded.
        cpu_s: Processor seconds of each process.
        memory_bytes: Address space of each process.
        file_bytes: Size of one file, and of the program's folder as a whole.
        processes: Processes and threads, the program itself included.
        open_files: Of each process.
        output_bytes: Size of one returned value on its way to the grader, written as JSON. What a
            program prints is thrown away unread.
    """

    wall_s: float = 9.0
    cpu_s: int = 3
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 16 * 2**20
    processes: int = 4
    open_files: int = 64
    output_bytes: int = 2**20

    def __post_init__(self) -> None:
        """Refuse limits that no program could run under."""
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value} but a limit must be above 0")
        if self.wall_s < self.cpu_s:
            raise ValueError(
                f"wall_s={self.wall_s:g} is below cpu_s={self.cpu_s}, so that a busy machine would "
                f"change verdicts: choose wall_s={3 * self.cpu_s}, or a smaller cpu_s"
            )


Rule = Literal["values", "objects", "stdio"]
"""How a program and its test meet.

- `values`: the test calls one function; arguments and results are copied.
- `objects`: besides, what cannot be copied stays with the program and the test gets a handle on it,
  and lists, dicts and sets among the arguments are changed as the program changed them.
- `stdio`: the program is run as a script, once per case in a process of its own, and its standard
  output is compared with the expected one, token by token and in order.
"""


@dataclass(frozen=True)
class Program:
    """One program to grade.

    Args:
        code: Untrusted source, complete: prompt and completion.
        entry_point: Name of the function in `code` that the check calls.
        test: Trusted source that defines `check(candidate)`. It runs in the grader and never
            reaches the process that runs `code`. Under the rule `values` arguments are copied:
            what the program does to them, the test does not see.
        preamble: Trusted source run before `test` in the same namespace, usually the prompt,
            for tests that call its helpers. `entry_point` then names the program's function.
        name: What to call this program in messages.
        rule: How program and test meet.
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
        """Refuse fields that the rule has no use for."""
        if self.exports and self.rule != "objects":
            raise ValueError(f"rule={self.rule!r} but only 'objects' can export {self.exports}")
        if bool(self.cases) != (self.rule == "stdio"):
            raise ValueError(
                f"rule={self.rule!r} with {len(self.cases)} cases: 'stdio' needs some, "
                "the other rules take none"
            )


class Verdict(NamedTuple):
    """What became of one program.

    `kind` is empty for `pass`, one of `FAIL_KINDS` for `fail`, and for `error` either `test` (the
    trusted source is at fault) or `grader` (the machinery is). `detail` is one bounded line. `rule`
    is how program and test met.
    """

    outcome: Outcome
    kind: str = ""
    detail: str = ""
    wall_s: float = 0.0
    rule: Rule = "values"


def one_line(text: str, length: int = 200) -> str:
    """Return `text` as one printable line of at most `length` characters.

    Programs write parts of it: without this they could put terminal escapes into a log.
    """
    head = text[: 4 * length]
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= length else line[: length - 1] + "…"
