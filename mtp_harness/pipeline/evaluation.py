"""Evaluates one checkpoint by the names of the plan that this package grew from (`EVALUATIONS`).

Each evaluation is a cell as in a suite (`cell`): a real process, which can be resumed.
"""

import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mtp_harness.files import user_path
from mtp_harness.models.load import n_future_tokens
from mtp_harness.pipeline.plan import plan
from mtp_harness.pipeline.results import metrics_of
from mtp_harness.pipeline.run import only_one, run_cells
from mtp_harness.pipeline.suite import make_suite, merged, require_keys, suggestion
from mtp_harness.results import tracking
from mtp_harness.results.result_file import ResultFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A name of the plan: its task, and the settings that differ from the task's own."""

    task: str
    metadata: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)


EVALUATIONS = {
    "inference-speed": Evaluation(
        "mtp_speed",
        {"batch": [1, 4, 8, 16], "prompt_tokens": [512, 1024, 2048], "trials": 10},
    ),
    "per-head-analysis": Evaluation("mtp_heads"),
    "token-accuracy": Evaluation("mtp_positions"),
    "self-speculative": Evaluation("mtp_speculative", model_args={"draft_threshold": 0.8}),
    "perplexity": Evaluation("mtp_perplexity", {"window": 256}),
}
CHARTS = "metrics-visualizer"
DEFAULT = ("inference-speed", "per-head-analysis", "token-accuracy")


def run_evaluation_pipeline(
    config: Mapping[str, Any] | Path | str | None,
    recipe: Mapping[str, Any] | Path | str | None,
    checkpoint_path: Path | str,
    eval_types: Sequence[str] | None = None,
    save_artifacts: bool = True,
) -> dict[str, Any]:
    """Evaluate one checkpoint.

    Args:
        config: where and how it runs, as a mapping or a YAML file: `output` (folder; default
            `evaluation/NAME`), `settings` (lm_eval's flags, as in a suite), `model_args`, `mlflow`
            (URI), `include_path`.
        recipe: what is measured, likewise: `algorithm` (the model's kind in the results;
            default mtp, or ntp for one head), `evaluations` (name → task metadata over the
            default settings).
        checkpoint_path: what `pretrained` takes.
        eval_types: names out of `EVALUATIONS` and `metrics-visualizer`; None means `DEFAULT`.
        save_artifacts: whether results, samples and charts stay in the output folder. If not,
            nothing is left on the disk, and there are no charts.

    Returns:
        `checkpoint` and `algorithm`; `results`: evaluation → `task`, `metrics` (flat), `tables`
        (see `mtp_harness.results.long_table`) and `file`; `charts`: paths.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an argument is invalid; nothing has run.
        RuntimeError: evaluations failed; the others are finished and do not run again.
    """
    config, recipe = _mapping(config, "config"), _mapping(recipe, "recipe")
    known = ("output", "settings", "model_args", "mlflow", "include_path")
    require_keys(config, known, (), "config")
    require_keys(recipe, ("algorithm", "evaluations"), (), "recipe")
    chosen = _chosen(eval_types, save_artifacts)
    own = recipe.get("evaluations") or {}
    require_keys(own, tuple(EVALUATIONS), (), "recipe: evaluations")
    checkpoint = str(checkpoint_path)
    drafter = (config.get("model_args") or {}).get("drafter")
    kind = "mtp" if n_future_tokens(checkpoint, drafter=drafter) > 1 else "ntp"
    with tempfile.TemporaryDirectory() as temporary:
        output = user_path(config.get("output") or Path("evaluation") / _label(checkpoint))
        folder = output if save_artifacts else Path(temporary)
        found = _run(config, own, checkpoint, [n for n in chosen if n != CHARTS], folder)
        charts = draw(folder, folder / "charts") if CHARTS in chosen else []
        if config.get("mlflow"):
            files = [results.path for results in found.values()]
            tracking.log_run(config["mlflow"], files, charts, _label(checkpoint))
    return {
        "checkpoint": checkpoint,
        "algorithm": recipe.get("algorithm", kind),
        "results": {name: _described(name, found[name], save_artifacts) for name in found},
        "charts": [str(path) for path in charts],
    }


def _run(
    config: Mapping[str, Any],
    own: Mapping[str, Any],
    checkpoint: str,
    names: Sequence[str],
    output: Path,
) -> dict[str, ResultFile]:
    """Run evaluations; return their results by name."""
    if not names:
        return {}
    model_args = {"pretrained": checkpoint, **(config.get("model_args") or {})}
    common = config.get("settings") or {}
    by_task = {EVALUATIONS[name].task: name for name in names}
    tasks = []
    for task, name in by_task.items():
        metadata = {**EVALUATIONS[name].metadata, **(own.get(name) or {})}
        settings = merged({"metadata": metadata} if metadata else {}, common)
        tasks.append({"task": task, **settings})
    content = {"models": [{"label": _label(checkpoint), "model_args": model_args}], "tasks": tasks}
    if config.get("include_path"):
        content["include_path"] = config["include_path"]
    suite = make_suite(content, "evaluation", "config")
    cells = [
        replace(cell, model_args={**EVALUATIONS[by_task[cell.task]].model_args, **cell.model_args})
        for cell in plan(suite, output)
    ]
    with only_one(output):
        outcomes = run_cells(cells, _log.info)
    if failed := [outcome for outcome in outcomes if outcome.failure]:
        said = "\n".join(f"{by_task[one.cell.task]}: {one.failure.strip()}" for one in failed)
        raise RuntimeError(f"{len(failed)} of {len(outcomes)} evaluations failed\n{said}")
    return {by_task[one.cell.task]: one.results for one in outcomes if one.results}


def _chosen(eval_types: Sequence[str] | None, save_artifacts: bool) -> list[str]:
    chosen = list(dict.fromkeys(DEFAULT if eval_types is None else eval_types))
    names = [*EVALUATIONS, CHARTS]
    if not chosen:
        raise ValueError(f"eval_types is empty, expected some of {', '.join(names)}, or None")
    for name in chosen:
        if name not in names:
            raise ValueError(f"there is no evaluation {name}; {suggestion(name, names)}")
    if CHARTS in chosen and not save_artifacts:
        raise ValueError(f"{CHARTS} makes files: leave it out, or set save_artifacts=True")
    return chosen


def _mapping(given: Mapping[str, Any] | Path | str | None, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    content = yaml.safe_load(user_path(given).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{what} {given} holds {content!r}, expected keys and values")
    return content


def _label(checkpoint: str) -> str:
    """Return a checkpoint's name as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", Path(checkpoint).name).lstrip("._+-") or "checkpoint"


def _described(name: str, results: ResultFile, kept: bool) -> dict[str, Any]:
    task = EVALUATIONS[name].task
    return {
        "task": task,
        "metrics": metrics_of(results, task),
        "tables": results.mtp.get("tables", {}).get(task, {}),
        "file": str(results.path) if kept else None,
    }


def draw(results: Path, charts: Path) -> list[Path]:
    """Draw every figure that the results below a folder allow; return the files, sorted.

    Raises:
        ValueError: the figures could not be drawn.
    """
    command = [sys.executable, "-m", "mtp_harness.cli", "figures", str(results), "-o", str(charts)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"`mtp-harness figures {results}` ended with: {said[:300]}")
    return sorted(path for path in charts.rglob("*") if path.is_file())
