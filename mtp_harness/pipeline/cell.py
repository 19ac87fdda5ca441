"""One cell of a suite: one model, one single task, one folder, one `lm_eval` command.

OUT/<label>/<task>/
    cell.json                  the settings, written before the process starts
    journal.jsonl              finished answers, also of a killed process
    log.txt                    what the process said
    <model>/results_….json     the harness's own output, and samples_….jsonl beside it
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval._cli.utils import key_val_to_dict

from mtp_harness.files import write_whole
from mtp_harness.harness.model_args import AFTER_LOADING
from mtp_harness.pipeline.results import arguments_of, complete_results
from mtp_harness.results.result_file import ResultFile

SETTINGS_FILE = "cell.json"
JOURNAL_FILE = "journal.jsonl"
LOG_FILE = "log.txt"

_HOW = ("batch_size", "max_batch_size", "device")
"""Settings that may change when an unfinished cell is resumed: answers do not depend on them."""


@dataclass(frozen=True)
class Cell:
    """One model and one single task."""

    label: str
    task: str
    model_args: dict[str, Any]  # the model's, without those that the suite adds
    settings: dict[str, Any]  # `lm_eval`'s flags
    folder: Path
    journal: bool = True  # whether the model keeps one (an ordinary model does not)
    include_path: str | None = None  # a folder with the user's tasks
    of_harness: bool = False  # whether the task is one of the harness's own
    own_process: bool = False  # whether no other cell may run in its process
    given_by: "Cell | None" = None  # gives this one's results, so that this one need not run

    @property
    def process(self) -> str | None:
        """What the cells of one process have in common; None if a cell needs its own process."""
        if self.own_process or self.model_args.get("parallelize"):
            return None
        loading = {k: v for k, v in self.model_args.items() if k not in AFTER_LOADING}
        return json.dumps([loading, self.settings.get("device")], sort_keys=True)

    def command(self) -> list[str]:
        """Return the process to start; it also works with the start-up hook off."""
        return [sys.executable, "-m", "mtp_harness.cli", "lm_eval", *self.arguments()]

    def arguments(self) -> list[str]:
        """Return `lm_eval`'s arguments."""
        model_args = {**self.model_args, "label": self.label}
        if self.journal:
            model_args["journal"] = str(self.folder / JOURNAL_FILE)
        flags = {**self.settings, "include_path": self.include_path}
        return [
            *("--model", "mtp", "--model_args", _key_values(model_args), "--tasks", self.task),
            *(word for name, value in sorted(flags.items()) for word in _flag(name, value)),
            *("--output_path", str(self.folder), "--log_samples"),
        ]

    def identity(self) -> dict[str, Any]:
        """Return what the cell's results depend on, as JSON values."""
        mine = {"task": self.task, "model_args": self.model_args, **self.settings}
        plain: dict[str, Any] = json.loads(json.dumps(mine))
        return plain

    def finished(self) -> ResultFile | None:
        """Return the cell's results; None if there are none, or incomplete ones.

        Raises:
            ValueError: the folder belongs to other settings.
        """
        results = complete_results(self.folder, self.task)
        recorded = self._recorded()
        if recorded is None:
            if results is not None and (made_by := arguments_of(results)) != self.arguments():
                raise ValueError(
                    f"{results.path} is not of this suite (it was made by lm_eval "
                    f"{' '.join(made_by)}): remove it, or choose another output folder"
                )
            return results
        ignored = () if results else _HOW
        if differing := list(_differences(recorded, self.identity(), ignored)):
            state = "is finished" if results else "was begun"
            raise ValueError(
                f"{self.folder} {state} with other settings, differing in {', '.join(differing)}: "
                "repeat those, remove the folder, or choose another output folder"
            )
        return results

    def begin(self) -> None:
        """Write the settings, so that a run with other settings is refused."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / SETTINGS_FILE, json.dumps(self.identity(), indent=2) + "\n")

    def _recorded(self) -> dict[str, Any] | None:
        path = self.folder / SETTINGS_FILE
        if not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            raise ValueError(
                f"{path} is damaged, expected the settings of a cell: remove {self.folder}, or "
                "choose another output folder"
            ) from None


def _differences(
    there: Mapping[str, Any], now: Mapping[str, Any], ignored: tuple[str, ...], above: str = ""
) -> Iterator[str]:
    """Yield the names of settings that differ, also of those in metadata or model_args."""
    for name in sorted({*there, *now} - {*ignored}):
        one, other = there.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, (), f"{above}{name}.")
        elif one != other or (name in there) != (name in now):
            shown = [json.dumps(where[name]) if name in where else "none" for where in (there, now)]
            yield f"{above}{name} ({shown[0]} there, {shown[1]} now)"


def _flag(name: str, value: Any) -> list[str]:
    """Return a setting as a value for the harness's command line."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, dict):
        return [f"--{name}", json.dumps(value)]
    if isinstance(value, list):
        return [f"--{name}", ",".join(map(str, value))]
    return [f"--{name}", str(value)]


def _key_values(arguments: dict[str, Any]) -> str:
    """Return `a=1,b=x` if the harness reads it back correctly, else JSON."""
    short = ",".join(f"{name}={value}" for name, value in arguments.items())
    try:
        # With a brace in it, the harness reads everything as JSON.
        same = "{" not in short and key_val_to_dict(short) == arguments
    except ValueError:
        same = False
    return short if same else json.dumps(arguments)
