"""`mtp-harness run suite.yaml`: several models times several tasks, and one comparison.

Each model and single task is a cell with its own folder. Cells of one checkpoint share a process,
but for timings, which have their own; a cell whose results do not depend on `draft_heads` runs once
for all values of it. The same command resumes a suite that was killed; a cell that fails is
reported, does not stop the others, and makes the exit status 1.

`--watch 'runs/*/checkpoint-*'` keeps running: models whose arguments have CHECKPOINT run on each
checkpoint once it is whole, and OUT/figures has the curves so far.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_harness.commands.arguments import Parser
from mtp_harness.commands.view import say
from mtp_harness.errors import sentence
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    from mtp_harness.pipeline.cell import Cell
    from mtp_harness.pipeline.run import Outcome
    from mtp_harness.pipeline.suite import Suite
    from mtp_harness.results import tracking

COMPARISON_FILE = "comparison.md"

CURVES = ("fig_5", "fig_s12", "fig_sample_efficiency", "fig_heads", "fig_heads_by_step")
"""Figures of checkpoints over training; `fig_heads` shows the last one."""


def main(argv: Sequence[str]) -> int:
    """Run a suite; return 0 where every cell is finished, 1 where one failed.

    With `--watch` it ends by Ctrl-C.

    Raises:
        FileNotFoundError: the suite, or a checkpoint, is not there.
        ValueError: the suite cannot be run as it is; nothing has run.
    """
    given = _parser().parse_args(argv)
    from mtp_harness.pipeline.plan import plan
    from mtp_harness.pipeline.run import only_one, run_cells
    from mtp_harness.pipeline.suite import read_suite
    from mtp_harness.pipeline.watch import refuse_watched
    from mtp_harness.results import tracking

    suite = read_suite(given.suite)
    output = given.output or suite.output
    if given.watch is not None:
        return _watch(given, suite, output)
    refuse_watched(suite)
    cells = plan(suite, output)
    if given.dry_run:
        for cell in cells:
            cell.finished()
        say("\n".join(map(_pasted, cells)))
        return 0
    store = tracking.Store(given.mlflow, suite.name) if given.mlflow else None
    with only_one(output):
        say(f"results go to {output}; the same command resumes a killed suite")
        outcomes = run_cells(cells, say)
        _conclude(outcomes, output)
        if store:
            _log(outcomes, store, output)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _watch(given: argparse.Namespace, suite: Suite, output: Path) -> int:
    from mtp_harness.pipeline.run import only_one
    from mtp_harness.pipeline.watch import watch

    if given.dry_run or given.mlflow:
        other = "--dry-run" if given.dry_run else "--mlflow"
        raise ValueError(
            f"--watch with {other}, expected one of them: leave one out (`mtp-harness figures "
            f"{output} -o FIGURES --mlflow URI` logs what was evaluated)"
        )
    failed: list[Outcome] = []

    def evaluated(outcomes: Sequence[Outcome]) -> None:
        failed.extend(outcome for outcome in outcomes if outcome.failure)
        _curves(outcomes, output)

    with only_one(output):
        try:
            watch(suite, given.watch, output, say, evaluated)
        except KeyboardInterrupt:
            say(f"\nstopped; {len(failed)} cells failed; the same command continues")
    return 1 if failed else 0


def _curves(outcomes: Sequence[Outcome], output: Path) -> None:
    """Print what was measured, and draw the curves of all results so far."""
    from mtp_harness.commands.figures import write
    from mtp_harness.figures.catalogue import draw_all
    from mtp_harness.pipeline.compare import ON_SCREEN, comparison
    from mtp_harness.results.tidy import read_runs

    if outcomes:
        say(comparison(outcomes, ON_SCREEN))
    try:
        results = read_runs([output])
    except (ValueError, OSError) as error:  # no results yet, or damaged ones
        say(f"no curve is drawn: {sentence(error)}")
        return
    gallery = draw_all(results, CURVES)
    files = len(write(gallery, output / "figures"))
    say("\n".join([*results.problems, *gallery.objections(), f"{files} files in {output}/figures"]))


def _pasted(cell: Cell) -> str:
    """Return the command that runs a cell; a comment if another cell gives its results."""
    if cell.given_by:
        return f"# {cell.label} {cell.task}: the results of {cell.given_by.label}"
    return shlex.join(cell.command())


def _parser() -> Parser:
    parser = Parser(
        "run",
        "Run several models on several tasks, and compare them. Cells of one checkpoint share a "
        "process; timings have their own.",
        "examples/suite.yaml -o results/",
    )
    parser.path("suite", metavar="SUITE", about="a suite.yaml: models, tasks, settings")
    about = (
        "folder for all cells; a suite that was begun there continues (default: the one that the "
        "suite names, else the suite's name)"
    )
    parser.path("-o", "--output", metavar="OUT", about=about)
    parser.add_argument(
        "--watch",
        metavar="'PATTERN'",
        help="keep running, and evaluate checkpoints as they appear, such as "
        "'runs/*/checkpoint-*', with the models whose arguments have CHECKPOINT; ends by "
        "Ctrl-C (default: run once)",
    )
    about = "print the cells' commands, which can be pasted (default: run them)"
    parser.switch("--dry-run", about)
    about = "log every finished cell there, such as sqlite:///mlflow.db (default: no)"
    parser.add_argument("--mlflow", metavar="URI", help=about)
    return parser


def _conclude(outcomes: Sequence[Outcome], output: Path) -> None:
    from mtp_harness.pipeline.compare import ON_SCREEN, comparison

    table = comparison(outcomes)
    write_whole(output / COMPARISON_FILE, table + "\n")
    say(f"\n{comparison(outcomes, ON_SCREEN)}\n\nall metrics: {output / COMPARISON_FILE}")
    failed = [outcome for outcome in outcomes if outcome.failure]
    if failed:
        say(f"{len(failed)} of {len(outcomes)} cells failed; the same command tries them again:")
    for outcome in failed:
        say(f"  {outcome.cell.label}  {outcome.cell.task}\n{outcome.failure}")


def _log(outcomes: Sequence[Outcome], store: tracking.Store, output: Path) -> None:
    """Log the finished cells with their figures, and the comparison, if they are new."""
    logged: list[tracking.Logged] = []
    without: list[str] = []
    for outcome in outcomes:
        cell = outcome.cell
        if outcome.results and outcome.results.path.is_relative_to(cell.folder):  # not another's
            file = outcome.results.path
            logged.append(store.log_results(file, name=f"{cell.label}/{cell.task}"))
            if logged[-1].new:
                store.log_results(file, _figures(cell.folder, without))
    new = sum(one.new for one in logged)
    if new:
        made = [output / COMPARISON_FILE, *_figures(output, without)]
        store.log_comparison(made, [one.run_id for one in logged])
    say(f"MLflow: {new} new runs in {store.experiment} at {store.uri}")
    if without:
        say(f"MLflow: {len(without)} times without figures, the first because {without[0]}")


def _figures(folder: Path, without: list[str]) -> list[Path]:
    """Return the figures of all results below a folder; if none, `without` gets the reason."""
    from mtp_harness.pipeline.evaluation import draw

    try:
        return draw(folder, folder / "figures")
    except ValueError as error:
        without.append(str(error))
        return []
