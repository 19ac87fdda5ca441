"""`mtp-harness data check`: whether each task's documents are on this machine, or how to get them.

Nothing is downloaded, and no model is loaded. Files are looked for where a run would look: a task's
YAML names the function that loads its documents. The harness's own tasks in our groups read the
cache of the `datasets` library.
"""

import argparse
import difflib
import gzip
import importlib
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mtp_harness.data.sources import (
    ENV_FOLDER,
    Source,
    damage_named,
    find_here,
    folders,
    require,
    rows_of,
)
from mtp_harness.harness.task_index import configuration, leaves, our_index
from mtp_harness.results.samples import family_of

HARNESS_REPOSITORIES = {
    "arc_challenge": "allenai/ai2_arc",
    "copa": "aps/super_glue",
    "hellaswag": "Rowan/hellaswag",
    "nq_open": "google-research-datasets/nq_open",
    "piqa": "baber/piqa",
    "social_iqa": "lighteval/siqa",
    "triviaqa": "mandarjoshi/trivia_qa",
}
"""The harness's own tasks in our groups, and their data sets on the hub."""

STATES = """\
there: found, and where; made: by the task itself; part: fewer documents than the benchmark has;
damaged: found, and why it cannot be read; missing: not found, and what to provide

"""

HOW = f"""
Put files into a folder that {ENV_FOLDER} names (for one run: --metadata '{{"data_dir": "DIR"}}');
tasks/*/README.md has all names that a file may have. To get a data set from the hub, run its task
once where the hub can be reached: it stays in the Hugging Face cache, a folder that HF_HOME names.
"""


class Status(NamedTuple):
    """What was found for one task."""

    state: str  # `there`, `part` of the documents, `made` by the task itself, `damaged`, `missing`
    detail: str  # where it is, what is wrong with it, or what to provide


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    given = _parser().parse_args(argv)
    found = check_tasks(given.tasks, given.data_dir)
    width = max(map(len, found))
    sys.stdout.write(STATES)
    for name, status in found.items():
        sys.stdout.write(f"{status.state:7}  {name:{width}}  {status.detail}\n")
    states = [status.state for status in found.values()]
    counted = (f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    sys.stdout.write(f"\n{', '.join(counted)}\n")
    if not given.tasks:
        sys.stdout.write("a task at a temperature (…_t0.8) reads the same documents as without\n")
    if "missing" in states:
        sys.stdout.write(HOW)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtp-harness data",
        description="Say where the tasks' documents are.",
        epilog="example: mtp-harness data check mtp_paper --data-dir /data",
    )
    check = parser.add_subparsers(required=True, metavar="check").add_parser(
        "check",
        help="say, task by task, what is there, what is missing, how to provide it",
        epilog="example: mtp-harness data check mtp_paper --data-dir /data",
    )
    check.add_argument("tasks", nargs="*", help="tasks or groups; default: all of this package")
    check.add_argument(
        "--data-dir",
        metavar="DIR",
        help=f"folder to look in before that of {ENV_FOLDER} (default: none)",
    )
    return parser


def check_tasks(names: Sequence[str] = (), data_dir: str | None = None) -> dict[str, Status]:
    """Return what was found, by task.

    Without names: for all tasks of this package but those at a temperature, which read the same
    documents as the task without.

    Raises:
        ValueError: There is no such task or group, or no such folder.
    """
    index = our_index()
    known = {name: configuration(entry) for name, entry in index.items() if entry.yaml_path}
    folders(data_dir)
    every = sorted(known, key=lambda name: ("group" in known[name], name))
    wanted = []
    for leaf in (leaf for name in names or every for leaf in leaves(name, index)):
        if leaf.name not in known and leaf.name not in HARNESS_REPOSITORIES:
            raise ValueError(_unknown(leaf.name, known))
        wanted.append(leaf.name)
    if not names:
        wanted = [name for name in wanted if family_of(name) == name]
    found = {}
    for name in dict.fromkeys(wanted):
        try:
            found[name] = _status(known.get(name), name, data_dir)
        except ValueError as error:
            found[name] = Status("damaged", " ".join(str(error).split()))
    return found


def _unknown(name: str, known: Collection[str]) -> str:
    if "," in name:
        return f"no task or group {name}, expected spaces between names: {name.replace(',', ' ')}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean {near[0]}?" if near else "; `mtp-harness data check` lists them"
    return f"no task or group {name} in this package{hint}"


def _status(config: Mapping[str, Any] | None, name: str, data_dir: str | None) -> Status:
    if config is None:
        return _in_datasets_cache(HARNESS_REPOSITORIES[name])
    if "custom_dataset" not in config:
        if "dataset_path" in config:
            return _in_datasets_cache(config["dataset_path"])
        return Status("made", "by the task itself")
    # The index shows a function of a module as a file beside the YAML.
    module = importlib.import_module(Path(config["custom_dataset"]).name.rpartition(".")[0])
    if hasattr(module, "BENCHMARKS"):  # several of one kind: the YAML says which
        benchmark = config["dataset_kwargs"]["benchmark"]
        whole = module.BENCHMARKS[benchmark].n_test
        return _of_source(module.source(benchmark), data_dir, whole)
    if hasattr(module, "find_file"):
        return _of_function(module, data_dir)
    if hasattr(module, "SOURCE"):
        return _of_source(module.SOURCE, data_dir)
    return Status("made", getattr(module, "MADE_FROM", "by the task itself"))


def _of_function(module: ModuleType, data_dir: str | None) -> Status:
    try:
        path = module.find_file(data_dir)
    except FileNotFoundError as missing:
        return Status("missing", str(missing).partition(": ")[2])
    return Status("there", f"{len(module.read_problems(data_dir))} documents, {path}")


def _of_source(source: Source, data_dir: str | None, whole: int | None = None) -> Status:
    paths = find_here(source, data_dir)
    if not paths:
        return Status(
            "missing",
            f"put {source.files[0]} into a folder (columns {', '.join(source.columns)}), or get "
            f"{source.repository} from the hub",
        )
    first = next(rows_of(paths[0]), None)
    if first is None:
        raise ValueError(f"{paths[0]} has no rows; expected those of {source.title}")
    try:
        require(first, source)
    except ValueError as error:
        raise ValueError(f"{paths[0]}: {error}") from None
    count, more = sum(map(_count, paths)), f" and {len(paths) - 1} more" if paths[1:] else ""
    if whole is not None and count != whole:
        return Status("part", f"{count} of {whole} documents, {paths[0]}{more}")
    return Status("there", f"{count} documents, {paths[0]}{more}")


def _count(path: Path) -> int:
    """Return the rows of a file, without reading what is in them."""
    with damage_named(path):
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as lines:
            return sum(bool(line.strip()) for line in lines)


def _in_datasets_cache(repository: str) -> Status:
    import datasets

    folder = Path(os.fspath(datasets.config.HF_DATASETS_CACHE)) / repository.replace("/", "___")
    if any(folder.rglob("*.arrow")):
        return Status("there", f"{folder}")
    return Status("missing", f"the harness gets {repository} from the hub into {folder}")
