"""`mtp-harness`: one command, each subcommand imported only when it is called.

`mtp-harness --help` therefore needs neither torch nor the harness. A subcommand is a function
`main(argv) -> int` named in `COMMANDS`; to add one, add a line there.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mtp_harness import __version__, tasks_dir


class Command(NamedTuple):
    """A subcommand: where its function is, and what it does in a few words."""

    target: str  # module:function
    summary: str


COMMANDS = {
    "lm_eval": Command("mtp_harness.cli:run_lm_eval", "lm_eval's own command line, with us in it"),
    "tasks-dir": Command("mtp_harness.cli:print_tasks_dir", "print the folder for --include_path"),
    "inspect": Command("mtp_harness.models.inspect:main", "say what a checkpoint is"),
    "convert": Command("mtp_harness.models.convert:main", "convert a checkpoint's layout"),
    "train": Command("mtp_harness.training.cli:main", "train a small multi-head model"),
    "measure": Command("mtp_harness.measure:main", "measure a trained model's heads"),
    "verify": Command("mtp_harness.verify:main", "compare k heads with plain decoding, by token"),
    "grade": Command("mtp_harness.scoring.grade:main", "grade the programs in saved samples"),
    "passk": Command(
        "mtp_harness.leaderboard.over_temperatures:main", "score several temperatures"
    ),
    "leaderboard": Command(
        "mtp_harness.leaderboard.cli:main", "compare the models of several runs"
    ),
    "report": Command("mtp_harness.report.cli:main", "make one page of everything in the results"),
    "run": Command("mtp_harness.pipeline.cli:main", "run several models on several tasks"),
    "rouge": Command("mtp_harness.scoring.rouge_table:main", "summaries' scores with intervals"),
    "choice": Command("mtp_harness.scoring.choice:main", "mean over the seven choice tasks"),
    "data": Command("mtp_harness.data.check:main", "say where the tasks' documents are"),
    "export": Command("mtp_harness.export:main", "write results in a format that others read"),
    "figures": Command("mtp_harness.figures.cli:main", "draw the paper's figures from results"),
    "demo": Command("mtp_harness.demo:main", "show what a run measured"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    A ValueError or OSError is a message to the user: one line and status 2, without a
    traceback unless Python runs in development mode (`python -X dev`).

    Args:
        argv: The arguments after the program's name; `sys.argv`'s by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Only the first argument is ours: the rest, --help included, belongs to the subcommand.
    name = _parser().parse_args(arguments[:1]).command
    module, _, function = COMMANDS[name].target.partition(":")
    try:
        run: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return run(arguments[1:])
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode or name == "lm_eval":  # a long run's traceback is worth its lines
            raise
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a sentence
            from mtp_harness.models.os_errors import sentence  # with torch, which others do without

            said = sentence(error)
        sys.stderr.write(f"mtp-harness {name}: {said}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="mtp-harness",
        usage="%(prog)s COMMAND [ARGUMENTS ...]",
        description="Evaluate multi-token-prediction language models.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
        + "\n\n`mtp-harness COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def run_lm_eval(argv: list[str]) -> int:
    """Run lm_eval's own command line with our model and tasks in it.

    This is `lm_eval` as it is after a plain install, where the start-up file is not read (`pip
    --target`, PYTHONPATH) or is switched off.

    Args:
        argv: lm_eval's arguments.
    """
    from mtp_harness import plugin

    plugin.install()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *argv]  # the harness reads its arguments from here only
    cli_evaluate()
    return 0


def print_tasks_dir(argv: list[str]) -> int:
    """Print the folder with our task YAMLs, for `lm_eval --include_path`.

    Args:
        argv: No arguments but `--help`.
    """
    argparse.ArgumentParser(
        prog="mtp-harness tasks-dir", description="Print the folder with the task YAMLs."
    ).parse_args(argv)
    sys.stdout.write(f"{tasks_dir()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
