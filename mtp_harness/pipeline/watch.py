"""Checkpoints of a training run, evaluated as they appear: `mtp-harness run SUITE --watch PATTERN`.

    runs/*/checkpoint-*                     the pattern
    runs/a/checkpoint-500                   run a, step 500
    OUT/<label>/a/checkpoint-500/<task>/    its cells; every label has one curve for each run

Models of the suite with CHECKPOINT in their arguments run on every checkpoint, the others once.
Finished cells are known by their results, so the same command continues after a restart, even if
the trainer has deleted checkpoints meanwhile.
"""

import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.errors import sentence
from mtp_harness.files import expanded
from mtp_harness.models.checkpoints.checks import read_json
from mtp_harness.models.checkpoints.safetensors_files import INDEX_FILE, SafetensorsFiles
from mtp_harness.models.provenance import trained
from mtp_harness.pipeline.cell import Cell
from mtp_harness.pipeline.plan import plan
from mtp_harness.pipeline.run import Outcome, run_cells
from mtp_harness.pipeline.suite import Model, Suite

CHECKPOINT = "CHECKPOINT"
"""Stands in a suite's model arguments for each folder or file that the pattern finds."""

LOOK_S = 10.0
"""Seconds between two looks."""

QUIET_S = 30.0
"""Seconds for which nothing in a checkpoint must have changed before it is read."""

STATE = "trainer_state.json"
"""What transformers' Trainer writes last into a checkpoint."""

_OF_TRAINER = ("training_args.bin", "optimizer.pt", "scheduler.pt")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.safetensors")
_PATTERN = re.compile(r"[*?]|\[.+\]")
_ZIPPED = (".pth", ".pt", ".bin")

State = dict[Path, tuple[int, int]]


class Checkpoint(NamedTuple):
    """What the pattern found."""

    path: Path  # absolute
    run: str  # the parts of its path in which runs differ; empty if the pattern matches one only
    name: str  # the last part that differs


class Looks:
    """The state of each checkpoint's files, and when they changed last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with no checkpoints; `clock` gives seconds."""
        self._clock = clock
        self._seen: dict[Path, tuple[State | None, float]] = {}

    def is_quiet(self, place: Path) -> bool:
        """Look at a checkpoint; return whether nothing in it changed for `QUIET_S`."""
        state, now = _state(place), self._clock()
        before, since = self._seen.get(place, (None, now))
        if state is None or state != before:
            since = now
        self._seen[place] = state, since
        return state is not None and now - since >= QUIET_S


def _state(place: Path) -> State | None:
    """Return size and time of each file; None if files appear or vanish meanwhile."""
    try:
        files = [place] if place.is_file() else list(place.rglob("*"))
        each = {file: file.stat() for file in files}
    except OSError:
        return None
    return {file: (one.st_size, one.st_mtime_ns) for file, one in each.items()}


def watch(
    suite: Suite,
    pattern: str,
    output: Path,
    say: Callable[[str], None],
    evaluated: Callable[[Sequence[Outcome]], None],
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Evaluate checkpoints as they appear, the first steps first, until something interrupts it.

    A checkpoint that cannot be read yet waits; the reason is printed once.

    Args:
        suite: Models with `CHECKPOINT` in their arguments, and any others.
        pattern: Matches checkpoints, as in a shell.
        output: Folder for all cells.
        say: Gets messages, line by line.
        evaluated: Gets the outcomes of each checkpoint, after those of the other models; none if
            results of an earlier run were found.
        pause: Waits for so many seconds.
        clock: Gives seconds.

    Raises:
        FileNotFoundError: A checkpoint of another model does not exist.
        ValueError: The suite or the pattern is invalid; nothing has run.
    """
    _check(suite, pattern)
    others = tuple(model for model in suite.models if not takes_checkpoint(model))
    cells = plan(suite._replace(models=others), output)  # checks the tasks where there are none
    say(f"watching {pattern}, every {LOOK_S:.0f} s; Ctrl-C ends it, the same command continues")
    if cells:
        evaluated(run_cells(cells, say))
    looks, done, said = Looks(clock), set[Path](), dict[Path, str]()
    while True:
        before, todo = 0, list[Cell]()
        for checkpoint in sorted(find(pattern), key=_order):
            if checkpoint.path in done or not looks.is_quiet(checkpoint.path) or todo:
                continue
            try:
                cells = cells_of(suite, checkpoint, output)
                is_finished = all(cell.finished() or cell.given_by for cell in cells)
            except (ValueError, OSError) as error:
                if said.get(checkpoint.path) != (reason := sentence(error)):
                    said[checkpoint.path] = reason
                    say(f"{checkpoint.path} waits: {reason}")
                continue
            done.add(checkpoint.path)
            before += is_finished
            todo = [] if is_finished else cells
        if before:
            say(f"{before} checkpoint{'s' * (before != 1)} finished before")
            evaluated(())
        if todo:  # then look again at once: it may have taken long
            say(f"\n{todo[0].folder.parent}")
            evaluated(run_cells(todo, say))
        else:
            pause(LOOK_S)


def _check(suite: Suite, pattern: str) -> None:
    if not _varying(pattern):
        raise ValueError(
            f"--watch {pattern} names one place, expected a pattern between quotes, such as "
            "--watch 'runs/*/checkpoint-*'"
        )
    taking = [model for model in suite.models if takes_checkpoint(model)]
    if not taking:
        raise ValueError(
            f"the suite {suite.name} has no model for what --watch finds, expected one with "
            f"{CHECKPOINT} in its arguments: add {{label: mine, model_args: {{pretrained: "
            f"{CHECKPOINT}}}}} to its models"
        )
    for model in taking:
        if given := [name for name in ("train_step", "train_tokens") if name in model.model_args]:
            raise ValueError(
                f"model {model.label}: {given[0]}={model.model_args[given[0]]} would apply to "
                "every checkpoint, expected nothing: leave it out, --watch reads it"
            )


def refuse_watched(suite: Suite) -> None:
    """Refuse a suite that only `--watch` can run.

    Raises:
        ValueError: A model has `CHECKPOINT` in its arguments.
    """
    for model in filter(takes_checkpoint, suite.models):
        raise ValueError(
            f"model {model.label} has {CHECKPOINT} in its arguments, which stands for what --watch "
            "finds: add --watch 'runs/*/checkpoint-*', or name a checkpoint"
        )


def takes_checkpoint(model: Model) -> bool:
    """Return whether a model of a suite runs on the checkpoints of `--watch`."""
    return any(CHECKPOINT in str(value) for value in model.model_args.values())


def find(pattern: str) -> Iterator[Checkpoint]:
    """Yield what a pattern finds; hidden files and folders are not found by `*`."""
    varying = _varying(pattern)
    # Unlike Path's, this `*` finds nothing hidden, and `**` is one part, too.
    for found in map(Path, glob(str(Path(expanded(pattern))))):  # noqa: PTH207
        parts = [found.parts[place] for place in varying]
        yield Checkpoint(found.absolute(), "/".join(parts[:-1]), parts[-1])


def _varying(pattern: str) -> list[int]:
    """Return which parts of a pattern match several names."""
    return [i for i, part in enumerate(Path(expanded(pattern)).parts) if _PATTERN.search(part)]


def _order(checkpoint: Checkpoint) -> tuple[list[int], Path]:
    """Sort by step, as far as the name contains it."""
    return [int(number) for number in re.findall(r"\d+", checkpoint.name)][-1:], checkpoint.path


def cells_of(suite: Suite, checkpoint: Checkpoint, output: Path) -> list[Cell]:
    """Return the cells of one checkpoint.

    Raises:
        FileNotFoundError: It lacks files.
        ValueError: It is incomplete, its step is unknown, or the suite cannot run on it.
    """
    refuse_unfinished(checkpoint.path)
    step = training_of(checkpoint)
    models = []
    for model in filter(takes_checkpoint, suite.models):
        own = {
            name: value.replace(CHECKPOINT, str(checkpoint.path)) if type(value) is str else value
            for name, value in model.model_args.items()
        }
        label = "/".join(filter(None, (model.label, checkpoint.run)))
        models.append(Model(label, {**own, **step}, f"{label}/{checkpoint.name}"))
    return plan(suite._replace(models=tuple(models)), output)


def refuse_unfinished(place: Path) -> None:
    """Refuse an incomplete checkpoint, as far as its files show it.

    Weights contain their length: safetensors at the beginning, torch's files at the end.

    Raises:
        FileNotFoundError: It lacks files that others name.
        ValueError: A file is cut off.
    """
    files = [place] if place.is_file() else sorted(place.iterdir())
    names = {file.name for file in files}
    for file in files:
        if file.suffix == ".safetensors":
            SafetensorsFiles(file)
        elif file.suffix in _ZIPPED and not zipfile.is_zipfile(file):
            raise ValueError(f"{file} is cut off, expected what torch.save writes: is it written?")
    if any(map(_SHARD.fullmatch, names)) and INDEX_FILE not in names:
        raise FileNotFoundError(f"{place} has no {INDEX_FILE} of its parts: is it written?")
    if INDEX_FILE in names:
        SafetensorsFiles(place)
    if names & {*_OF_TRAINER} and STATE not in names:
        raise FileNotFoundError(f"{place} has no {STATE}, which Trainer writes last")


def training_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the model arguments that put a checkpoint on an axis: step, and tokens if known.

    From `training.json` of `mtp-harness train`, from Trainer's state (which counts tokens with
    `include_num_input_tokens_seen=True`), or from the last number in its name.

    Raises:
        ValueError: None of them has the step, or a file is damaged.
    """
    if found := trained(checkpoint.path):
        return dict(found)
    if (checkpoint.path / STATE).is_file():
        state = read_json(checkpoint.path / STATE)
        step, tokens = state.get("global_step"), state.get("num_input_tokens_seen")
        if type(step) is not int or step < 0:
            raise ValueError(f"{checkpoint.path / STATE} has global_step={step}, expected a number")
        return {"train_step": step} | (
            {"train_tokens": tokens} if type(tokens) is int and tokens > 0 else {}
        )
    numbers = re.findall(r"\d+", checkpoint.name)
    if not numbers:
        raise ValueError(
            f"its step is not known, expected a number in its name {checkpoint.name}, or {STATE}"
        )
    return {"train_step": int(numbers[-1])}
