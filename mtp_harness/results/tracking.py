"""Results of the harness in MLflow: parameters, metrics, samples and figures of each run.

One results file is one MLflow run, with:

    parameters   the run's settings and `config.mtp`, flat: `model_args.draft_heads`, `mtp.dtype`, …
    metrics      `TASK/METRIC`, with `@` spelled out (`humaneval_mtp/pass_at_1`), and `totals/…`
    artifacts    the results file, its samples under `samples/`, and figures under `figures/`
    tags         the file's SHA-256, so that a file is logged only once

Reads JSON only. Needs the extra `mlflow`: `pip install 'mtp-harness[mlflow]'`.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.files import expanded
from mtp_harness.results import result_file
from mtp_harness.results.find import all_samples
from mtp_harness.results.result_file import ResultFile, is_number

FILE_TAG = "mtp_harness.results_sha256"
_BATCH = 100
"""Most parameters that MLflow takes at once."""

_NOT_PARAMETERS = ("totals", "tables", "documents")
"""Parts of `config.mtp` that are results."""


class Logged(NamedTuple):
    """A run in MLflow, by its id, and whether it is new."""

    run_id: str
    new: bool


def log_run(
    uri: str,
    results_files: Sequence[Path],
    artifacts: Sequence[Path] = (),
    experiment: str = "mtp-harness",
) -> list[str]:
    """Log results files, and figures, tables or folders of them; return the ids of the runs.

    Artifacts of one results file belong to its run. Artifacts of several belong to one more run,
    the last of the ids, which names the runs behind it.

    Args:
        uri: of the tracking server or store, such as `sqlite:///mlflow.db`.
        results_files: each is a run, logged once.
        artifacts: files and folders.
        experiment: MLflow's name for a set of runs.

    Raises:
        ValueError: MLflow is not installed or cannot use the store, or a file is not a results
            file.
    """
    store = Store(uri, experiment)
    alone = len(results_files) == 1
    logged = [store.log_results(path, artifacts if alone else ()) for path in results_files]
    ids = [one.run_id for one in logged]
    if artifacts and not alone:
        ids.append(store.log_comparison(artifacts, ids))
    return ids


class Store:
    """One experiment in an MLflow store."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Open the store, and make the experiment if it is new.

        Raises:
            ValueError: MLflow is not installed, or cannot use the store.
        """
        self.uri, self.experiment = _with_home(uri), experiment
        try:
            import mlflow
        except ImportError:
            raise ValueError(
                "MLflow is not installed: pip install 'mtp-harness[mlflow]', or leave --mlflow out"
            ) from None
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with self._in_words():
            self._client = mlflow.MlflowClient(tracking_uri=self.uri)
            known = self._client.get_experiment_by_name(experiment)
            self._id = known.experiment_id if known else self._client.create_experiment(experiment)

    def log_results(
        self, path: Path, artifacts: Sequence[Path] = (), name: str | None = None
    ) -> Logged:
        """Log a results file, by default under its model and tasks, or add artifacts to it."""
        file = result_file.read(path, path.name)
        with self._in_words():
            run_id = self._finished_run(file.sha256)
            new = run_id is None
            if run_id is None:
                name = name or f"{file.label}/{'+'.join(file.content['results'])}"
                run_id = self._begin(name, {FILE_TAG: file.sha256})
                self._log_numbers(run_id, file)
                self._client.log_artifact(run_id, str(path))
                for samples in all_samples(path):
                    self._client.log_artifact(run_id, str(samples), "samples")
            self._log_figures(run_id, artifacts)
            self._client.set_terminated(run_id)
        return Logged(run_id, new)

    def log_comparison(self, artifacts: Sequence[Path], run_ids: Sequence[str]) -> str:
        """Log artifacts made from several runs; return the id of their run."""
        with self._in_words():
            run_id = self._begin("comparison", {})
            for place, one in enumerate(run_ids):
                self._client.set_tag(run_id, f"mtp_harness.run_{place}", one)
            self._log_figures(run_id, artifacts)
            self._client.set_terminated(run_id)
        return run_id

    def _begin(self, name: str, tags: dict[str, str]) -> str:
        return str(self._client.create_run(self._id, run_name=name, tags=tags).info.run_id)

    def _finished_run(self, digest: str) -> str | None:
        """Return the run of a file; runs that were killed while being logged are removed."""
        found = None
        for run in self._client.search_runs([self._id], f"tags.`{FILE_TAG}` = '{digest}'"):
            if run.info.status == "FINISHED":
                found = str(run.info.run_id)
            else:
                self._client.delete_run(run.info.run_id)
        return found

    def _log_numbers(self, run_id: str, file: ResultFile) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        params = [Param(key, value) for key, value in parameters(file).items()]
        metrics = [Metric(key, value, now, 0) for key, value in numbers(file).items()]
        for start in range(0, max(len(params), len(metrics)), _BATCH):
            part = slice(start, start + _BATCH)
            self._client.log_batch(run_id, params=params[part], metrics=metrics[part])

    def _log_figures(self, run_id: str, artifacts: Sequence[Path]) -> None:
        for path in artifacts:
            log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            log(run_id, str(path), "figures")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError, ImportError) as error:  # the last: a database's driver
            said = " ".join(str(error).split())
            raise ValueError(f"MLflow cannot use {self.uri}: {said}") from error


def _with_home(uri: str) -> str:
    """Return the place of a store with `~` expanded, also if it is a file's address."""
    scheme = next((one for one in ("sqlite:///", "file://") if uri.startswith(one)), "")
    return scheme + expanded(uri.removeprefix(scheme))


def parameters(file: ResultFile) -> dict[str, str]:
    """Return the settings in a results file, flat, as text."""
    content = file.content
    config = dict(content["config"])
    config["mtp"] = {key: value for key, value in file.mtp.items() if key not in _NOT_PARAMETERS}
    config["tasks"] = list(content["results"])
    for task, own in content["configs"].items():
        config[f"task.{task}.metadata"] = own.get("metadata")
        config[f"task.{task}.num_fewshot"] = file.told("n-shot", task)
    return {_word(key): _text(value) for key, value in _flat(config) if value is not None}


def numbers(file: ResultFile) -> dict[str, float]:
    """Return the metrics in a results file, by their names in MLflow."""
    named = {
        f"{task}/{key.removesuffix(',none')}": value
        for task, metrics in file.content["results"].items()
        for key, value in metrics.items()
        if key.partition(",")[2]
    }
    named |= {f"totals/{key}": value for key, value in _flat(file.mtp.get("totals") or {})}
    return {_word(name): float(value) for name, value in named.items() if is_number(value)}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _word(name: str) -> str:
    """Return a name in the characters that MLflow allows."""
    spelled = name.replace("@", "_at_").replace(",", "/")
    return "".join(one if one.isalnum() or one in "_-./ " else "_" for one in spelled)
