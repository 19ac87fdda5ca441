"""What is logged is read back with MLflow's own client, from a real store."""

import json
import os
import subprocess
import sys

import pytest

mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")

from mtp_harness.results.tracking import Store, log_run  # noqa: E402

STAMP = "2026-01-31T12-00-00.000000"


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts below the current folder


def results(folder, value=0.25):
    folder.mkdir(exist_ok=True)
    content = {
        "results": {
            "t": {
                "alias": "t",
                "sample_len": 2,
                "pass@1,none": value,
                "pass@1_stderr,none": "N/A",
                "acc,flexible": 1,
            }
        },
        "config": {
            "model": "mtp",
            "model_args": {"pretrained": "mtp-bytes-n4", "draft_heads": 2},
            "limit": 2,
            "use_cache": None,
            "mtp": {
                "label": "n4",
                "n_future_tokens": 4,
                "draft_heads": 2,
                "dtype": "float32",
                "totals": {"n_answers": 2, "timing": {"tokens_per_s": 10.5}},
                "tables": {"t": {"columns": [], "rows": []}},
            },
        },
        "configs": {"t": {"metadata": {"version": 1.0}}},
        "n-shot": {"t": 0},
    }
    path = folder / f"results_{STAMP}.json"
    path.write_text(json.dumps(content))
    (folder / f"samples_t_{STAMP}.jsonl").write_text('{"doc_id": 0}\n')
    (folder / "samples_t_2025-01-01T00-00-00.jsonl").write_text("of another run")
    return path


def read_back(uri, experiment="mtp-harness"):
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def test_a_run_has_parameters_metrics_samples_and_figures(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    path = results(tmp_path / "a")
    (tmp_path / "fig").mkdir()
    (tmp_path / "fig/fig_1.png").write_bytes(b"png")
    [run_id] = log_run(uri, [path], [tmp_path / "fig"])
    client, [run] = read_back(uri)
    assert run.info.run_id == run_id and run.info.status == "FINISHED"
    assert run.info.run_name == "n4/t"
    assert run.data.metrics == {
        "t/pass_at_1": 0.25,
        "t/acc/flexible": 1.0,
        "totals/n_answers": 2.0,
        "totals/timing.tokens_per_s": 10.5,
    }
    params = run.data.params
    assert params["model_args.draft_heads"] == "2" and params["model"] == "mtp"
    assert params["mtp.dtype"] == "float32" and params["limit"] == "2"
    assert json.loads(params["tasks"]) == ["t"]
    assert params["task.t.metadata.version"] == "1.0" and params["task.t.num_fewshot"] == "0"
    assert not [key for key in params if "totals" in key or "tables" in key or "use_cache" in key]

    def names(folder=None):
        return {one.path for one in client.list_artifacts(run_id, folder)}

    assert names() == {path.name, "samples", "figures"}
    assert names("samples") == {f"samples/samples_t_{STAMP}.jsonl"}
    assert names("figures") == {"figures/fig_1.png"}
    downloaded = client.download_artifacts(run_id, path.name, str(tmp_path))
    with open(downloaded) as file:  # noqa: PTH123
        assert json.load(file) == json.loads(path.read_text())


def test_a_file_is_logged_once_and_a_new_one_again(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    path = results(tmp_path / "a")
    store = Store(uri, "suite")
    first = store.log_results(path)
    assert first.new and store.log_results(path) == first._replace(new=False)
    results(tmp_path / "a", 0.75)
    assert store.log_results(path).run_id != first.run_id
    _, runs = read_back(uri, "suite")
    assert sorted(run.data.metrics["t/pass_at_1"] for run in runs) == [0.25, 0.75]


def test_a_run_that_was_killed_while_it_was_logged_is_logged_anew(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    path = results(tmp_path / "a")
    store = Store(uri, "suite")
    first = store.log_results(path)
    client = mlflow.MlflowClient(tracking_uri=uri)
    client.update_run(first.run_id, status="RUNNING")
    again = store.log_results(path)
    assert again.new
    _, [run] = read_back(uri, "suite")
    assert run.info.run_id == again.run_id


def test_figures_of_several_results_get_a_run_that_names_them(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "table.md").write_text("| a |")
    paths = [results(tmp_path / "a"), results(tmp_path / "b", 0.5)]
    ids = log_run(uri, paths, [tmp_path / "table.md"])
    client, runs = read_back(uri)
    assert len(ids) == len(runs) == 3
    comparison = client.get_run(ids[-1])
    assert [comparison.data.tags[f"mtp_harness.run_{i}"] for i in (0, 1)] == ids[:2]
    assert [one.path for one in client.list_artifacts(ids[-1], "figures")] == ["figures/table.md"]


def test_a_store_that_cannot_be_used():
    with pytest.raises(ValueError, match="MLflow cannot use nonsense://x: ") as caught:
        Store("nonsense://x", "x")
    assert "\n" not in str(caught.value)


def test_what_is_no_results_file(tmp_path):
    (tmp_path / "results_x.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"results_x\.json has no results, configs, config, expected"
    ):
        log_run(f"sqlite:///{tmp_path}/mlflow.db", [tmp_path / "results_x.json"])


def test_without_mlflow_there_is_one_sentence(tmp_path):
    code = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from mtp_harness.results.tracking import Store\n"
        "try: Store('sqlite:///x.db', 'x')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.startswith("MLflow is not installed: pip install 'mtp-harness[mlflow]'")
