"""`mtp-harness`: one command, each subcommand imported only when it is called.

`mtp-harness --help` therefore needs neither torch nor the harness. A subcommand is a file in
`commands/` with a function `main(argv) -> int`, and a line in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mtp_harness import __version__
from mtp_harness.errors import sentence

COMMANDS = {
    "lm_eval": "lm_eval's own command line, with our model and tasks",
    "tasks": "list the tasks: what they measure, how long they take",
    "tasks-dir": "print the folder for --include_path",
    "inspect": "say what a checkpoint is",
    "convert": "convert a checkpoint's layout",
    "train": "train a small multi-head model",
    "measure": "measure a trained model's heads",
    "verify": "check that k heads give the tokens of plain decoding",
    "grade": "grade the programs in saved samples",
    "passk": "pass@k over several temperatures",
    "leaderboard": "compare the models of several runs",
    "compare": "say what changed between two runs, paired by document",
    "advise": "say which k to serve, by category and batch",
    "report": "make one page of all results",
    "run": "run several models on several tasks",
    "rouge": "ROUGE scores of summaries with intervals",
    "choice": "mean over the seven choice tasks",
    "data": "say where the tasks' documents are",
    "export": "write results in a format that others read",
    "figures": "draw the paper's figures from results",
    "demo": "show what a run measured",
}
"""Each is `main` in the module of its name in `mtp_harness.commands`."""


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
    try:
        command = importlib.import_module(f"mtp_harness.commands.{name.replace('-', '_')}")
        status: int = command.main(arguments[1:])
        return status
    except (ValueError, OSError) as error:
        if sys.flags.dev_mode or name == "lm_eval":  # a long run's traceback is worth its lines
            raise
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a sentence
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
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
        + "\n\n`mtp-harness COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


if __name__ == "__main__":
    sys.exit(main())
