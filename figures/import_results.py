"""Bring results into `figures/results`: python figures/import_results.py FOLDER … [--note TEXT].

Results files and their samples are copied into `figures/results/cpu/LABEL/TASKS/`, or `gpu` where
they were measured on one, less what says where they were made: absolute paths keep their last part,
the environment's description is left out, and of samples, which become `.jsonl.gz`, only numbers,
hashes and settings stay, no text. A note is shown on every figure that is drawn from the run. A
file that was brought in before is written again, the same.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtp_harness.results import result_file
from mtp_harness.results.documents import EMPTY, count_empty
from mtp_harness.results.find import PACKED, find_results, write_lines
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.samples import family_of, read
from mtp_harness.results.values import columns_of

RESULTS = Path(__file__).parent / "results"

KEPT = (
    "results configs versions n-shot n-samples config date model_name lm_eval_version "
    "transformers_version task_hashes note"
).split()
SOURCE = ("custom_dataset", "process_results", "process_docs", "doc_to_text", "doc_to_target")
"""Settings of tasks that hold the source of a function."""

HASHES = ("doc_hash", "prompt_hash", "target_hash", "filter")

_PATH = re.compile(r"(?<![\w.:/-])/(?:[\w.@+ -]+/)+([\w.@+-]*)")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results_….json, or folders")
    parser.add_argument("--note", help="shown on figures, such as: timed on a busy machine")
    parser.add_argument("--gallery", help="folder of results/ (default: cpu or gpu, by the run)")
    parser.add_argument("--into", type=Path, default=RESULTS, help="folder instead of results/")
    given = parser.parse_args(argv)
    for path, name in find_results(given.results).items():
        file = result_file.read(path, name)
        columns_of(file)  # what cannot be drawn does not come in
        written = bring(file, given.into, given.gallery, given.note)
        sys.stdout.write(f"{written.relative_to(given.into)}\n")
    return 0


def bring(file: ResultFile, into: Path, gallery: str | None, note: str | None) -> Path:
    """Write a results file and its samples; return the first."""
    content = {key: file.content[key] for key in KEPT if key in file.content}
    content["configs"] = {
        task: {key: value for key, value in config.items() if key not in SOURCE}
        for task, config in content["configs"].items()
    }
    if note:
        content["note"] = note
    tasks = "+".join(dict.fromkeys(family_of(task) for task in file.tasks))
    machine = "gpu" if "gpu" in (file.mtp.get("hardware") or {}) else "cpu"
    folder = into / (gallery or machine) / file.label / tasks
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.path.name
    path.write_text(json.dumps(anonymous(content), indent=None) + "\n", encoding="utf-8")
    for task in file.tasks:
        if samples := file.samples(task):
            plain = folder / samples.name.removesuffix(PACKED)
            lines = (json.dumps(without_texts(sample)) for sample in read(samples))
            write_lines(plain.with_name(plain.name + PACKED), lines)
            plain.unlink(missing_ok=True)  # it would be read instead
    return path


def anonymous(value: Any) -> Any:
    """Return a JSON value whose texts have no absolute path."""
    if isinstance(value, dict):
        return {key: anonymous(entry) for key, entry in value.items() if key != "config_source"}
    if isinstance(value, list):
        return [anonymous(entry) for entry in value]
    return _PATH.sub(r"…/\1", value) if isinstance(value, str) else value


def without_texts(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a document's numbers, hashes and settings, and how many of its answers have no text.

    Its prompts and answers are left empty.
    """
    kept = {key: value for key, value in sample.items() if key in HASHES or _is_score(value)}
    if "arguments" in sample:
        kept["arguments"] = [_settings(request) for request in _requests(sample["arguments"])]
    if (empty := count_empty(sample)) is not None:
        kept[EMPTY] = empty
    if "resps" in sample:
        kept["resps"] = [["" for _ in answers] for answers in sample["resps"]]
    return kept


def _is_score(value: Any) -> bool:
    """Return whether a value is a number, or a list of them that the task sums."""
    if isinstance(value, list):
        return bool(value) and all(type(one) in (int, float) for one in value)
    return type(value) in (int, float)


def _requests(arguments: Any) -> list[Any]:
    return list(arguments.values() if isinstance(arguments, dict) else arguments)


def _settings(request: Any) -> list[Any]:
    each = request.values() if isinstance(request, dict) else request
    return [part if isinstance(part, dict) else "" for part in each]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
