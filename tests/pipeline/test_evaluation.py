import json
from pathlib import Path

import pytest

from mtp_harness.pipeline import run_evaluation_pipeline
from mtp_harness.pipeline.evaluation import DEFAULT, EVALUATIONS

N4 = "mtp-bytes-n4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, N4, []), "eval_types is empty, expected some of inference-speed"),
        ((None, None, N4, ["token-acuracy"]), r"no evaluation token-acuracy; did you mean token-"),
        ((None, None, N4, ["metrics-visualizer"], False), "makes files: leave it out, or set"),
        (({"device": "cpu"}, None, N4), "config has the unknown key device; known are output"),
        ((None, {"evals": {}}, N4), r"recipe has the unknown key evals"),
        ((None, {"evaluations": {"x": {}}}, N4), "recipe: evaluations has the unknown key x"),
        (({"settings": {"limit": 0}}, None, N4, ["perplexity"]), "limit=0, expected a whole"),
        ((None, None, "./nowhere"), "nowhere"),
    ],
)
def test_arguments_are_checked_before_anything_runs(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_evaluation_pipeline(*arguments)
    assert not list(tmp_path.iterdir())


def test_the_plan_s_names_and_defaults():
    # The plan: speed at batches 1, 4, 8, 16 and lengths 512, 1024, 2048 in 10 trials; drafts of
    # confidence .8; a sliding window of 256.
    assert DEFAULT == ("inference-speed", "per-head-analysis", "token-accuracy")
    assert {name: one.task for name, one in EVALUATIONS.items()} == {
        "inference-speed": "mtp_speed",
        "per-head-analysis": "mtp_heads",
        "token-accuracy": "mtp_positions",
        "self-speculative": "mtp_speculative",
        "perplexity": "mtp_perplexity",
    }
    speed = EVALUATIONS["inference-speed"].metadata
    assert speed == {"batch": [1, 4, 8, 16], "prompt_tokens": [512, 1024, 2048], "trials": 10}
    assert EVALUATIONS["self-speculative"].model_args == {"draft_threshold": 0.8}
    assert EVALUATIONS["perplexity"].metadata == {"window": 256}


SPEED = {"batch": [1, 2], "prompt_tokens": [64], "new_tokens": 16, "trials": 1}
QUICK = {name: {"quick": True} for name in EVALUATIONS} | {"inference-speed": SPEED}


@pytest.mark.slow
@pytest.mark.xdist_group("suites")
def test_all_evaluations_of_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"evaluations": QUICK}))
    config = {"output": str(tmp_path / "out"), "settings": {"device": "cpu", "limit": 4}}
    found = run_evaluation_pipeline(config, recipe, N4, [*EVALUATIONS, "metrics-visualizer"])
    assert found.keys() == {"checkpoint", "algorithm", "results", "charts"}
    assert (found["checkpoint"], found["algorithm"]) == (N4, "mtp")
    pictures = {Path(chart).stem for chart in found["charts"] if chart.endswith(".png")}
    assert pictures >= {"fig_heads", "fig_positions", "fig_perplexity", "fig_speed"}
    assert all(Path(chart).is_file() for chart in found["charts"])
    assert list(found["results"]) == list(EVALUATIONS)
    for name, one in found["results"].items():
        assert one["task"] == EVALUATIONS[name].task
        content = json.loads(Path(one["file"]).read_text())
        assert one["metrics"] and one["tables"] == content["config"]["mtp"]["tables"][one["task"]]
        assert all(value == value for value in one["metrics"].values()), "NaN"
    cells = {
        path.parent.name: json.loads(path.read_text())
        for path in (tmp_path / "out").rglob("cell.json")
    }
    assert cells["mtp_speculative"]["model_args"]["draft_threshold"] == 0.8
    assert cells["mtp_speed"]["metadata"] == SPEED
    assert cells["mtp_perplexity"]["metadata"] == {"window": 256, "quick": True}


@pytest.mark.slow
@pytest.mark.xdist_group("suites")
def test_nothing_stays_where_nothing_is_to_be_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    recipe = {"algorithm": "baseline", "evaluations": QUICK}
    config = {"settings": {"device": "cpu", "limit": 2}}
    found = run_evaluation_pipeline(config, recipe, "mtp-bytes-n1", ["per-head-analysis"], False)
    assert found["algorithm"] == "baseline" and found["results"]["per-head-analysis"]["metrics"]
    assert found["results"]["per-head-analysis"]["file"] is None
    assert not list(tmp_path.iterdir())
