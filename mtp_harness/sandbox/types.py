"""What goes into the grader and what comes out of it: limits, programs, verdicts."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Outcome = Literal["pass", "fail", "error"]
"""`error` is the grader's own failure: count and show it, never score it as 0."""

FAIL_KINDS = (
    "wrong_answer",
    "exception",
    "timeout",
    "memory",
    "output",
    "no_entry_point",
    "syntax",
)


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Args:
        wall_s: Seconds from the program's first line to the end of its check; startup excluded.
        cpu_s: Processor seconds of each process.
        memory_bytes: Address space of each process.
        file_bytes: Size of one file, and of the program's folder as a whole.
        processes: Processes and threads, the program itself included.
        open_files: Open file descriptors of each process.
        output_bytes: Size of one returned value on its way to the grader, written as JSON. What a
            program prints is thrown away unread.
    """

    wall_s: float = 3.0
    cpu_s: int = 4
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


@dataclass(frozen=True)
class Program:
    """One program to grade.

    Args:
        code: Untrusted source, complete: prompt and completion.
        entry_point: Name of the function in `code` that the check calls.
        test: Trusted source that defines `check(candidate)`. It runs in the grader and never
            reaches the process that runs `code`. Arguments are copied to the program: what it
            does to them, the test does not see.
        preamble: Trusted source run before `test` in the same namespace, usually the prompt,
            for tests that call its helpers. `entry_point` then names the program's function.
        name: What to call this program in messages.
    """

    code: str
    entry_point: str
    test: str
    preamble: str = ""
    name: str = ""


class Verdict(NamedTuple):
    """What became of one program.

    `kind` is empty for `pass`, one of `FAIL_KINDS` for `fail`, and for `error` either `test` (the
    trusted source is at fault) or `grader` (the machinery is). `detail` is one bounded line.
    """

    outcome: Outcome
    kind: str
    detail: str
    wall_s: float


def one_line(text: str, length: int = 200) -> str:
    """Return `text` as one printable line of at most `length` characters.

    Programs write parts of it: without this they could put terminal escapes into a log.
    """
    head = text[: 4 * length]
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= length else line[: length - 1] + "…"
