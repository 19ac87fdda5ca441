from pathlib import Path

import pytest
import yaml

from mtp_harness.pipeline.plan import plan
from mtp_harness.pipeline.suite import make_suite, read_suite


def cells(models, tasks=("humaneval_mtp",), **more):
    content = {"models": models, "tasks": list(tasks), **more}
    return plan(make_suite(content, "mine", "mine.yaml"), Path("out"))


SHIPPED = [
    {"label": "n4", "model_args": {"pretrained": "mtp-bytes-n4"}},
    {"label": "n1", "model_args": {"pretrained": "mtp-bytes-n1"}},
]


def test_one_cell_per_model_and_single_task():
    found = cells(SHIPPED, ["mtp_code"], settings={"limit": 2})
    assert [(cell.task, cell.label) for cell in found] == [
        ("humaneval_mtp", "n4"),
        ("humaneval_mtp", "n1"),
        ("mbpp_mtp", "n4"),
        ("mbpp_mtp", "n1"),
    ]
    assert {cell.folder for cell in found} == {
        Path("out", label, task) for label in ("n4", "n1") for task in ("humaneval_mtp", "mbpp_mtp")
    }
    assert all(cell.journal and cell.settings == {"limit": 2} for cell in found)


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"pretrained": "./nowhere"}, "model a: .*nowhere"),
        ({"pretrained": "mtp-bytes-n5"}, r"model a: .*did you mean mtp-bytes-n4\?"),
        ({"draft_heads": 5}, "model a: draft_heads=5, but this checkpoint has 4 heads"),
        ({"pretrained": "mtp-bytes-n1", "draft_heads": 2}, "has 1 head; choose 1."),
        ({"draft_head": 2}, r"model a: unknown model argument draft_head=2; did you mean draft_h"),
        ({"revision": "x"}, "model a: revision=x does not work with a checkpoint that has heads"),
        ({"dtype": "float17"}, "model a: dtype=float17, expected auto"),
        ({"train_tokens": "2 billion"}, "model a: train_tokens=2 billion, expected a whole number"),
        ({"pretrained": 10}, "model a: pretrained=10, expected a folder"),
        ({"loader": "no_such_module:load"}, "model a: loader=no_such_module:load: importing"),
        ({"tokenizer": "./nowhere"}, "model a: nowhere does not exist"),
        ({"acceptance": "some"}, "model a: acceptance=some, expected exact"),
        ({"draft_threshold": "2"}, "model a: draft_threshold=2, expected a probability"),
        ({"seed": "x"}, "model a: seed=x, expected a whole number"),
    ],
)
def test_models_are_checked_before_anything_runs(model_args, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        cells([{"label": "a", "model_args": model_args}])
    assert "\n" not in str(caught.value)


def test_an_ordinary_model_keeps_no_journal(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    [cell] = cells([{"label": "a", "model_args": {"pretrained": str(tmp_path)}}])
    assert not cell.journal


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"train_tokens": "2 billion"}, "train_tokens=2 billion, expected a whole number"),
        ({"draft_threshold": 0.5}, r"is an ordinary .* \(draft_threshold=0.5\)"),
        ({"max_length": "long"}, "max_length=long, expected a whole number"),
        ({"draft_head": 2}, r"unknown model argument draft_head=2; did you mean draft_heads\?"),
        ({"max_lenght": 2}, r"unknown model argument max_lenght=2; did you mean max_length\?"),
    ],
)
def test_an_ordinary_model_s_arguments_are_checked_too(tmp_path, model_args, message):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=f"model a: .*{message}"):
        cells([{"label": "a", "model_args": {"pretrained": str(tmp_path), **model_args}}])


def test_numbers_that_yaml_gives_as_text_are_numbers(tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("""
models: [{label: a, model_args: {train_tokens: 2e9, draft_heads: '2', seed: '7'}}]
tasks: [{task: humaneval_mtp, metadata: {n_samples: '20', temperature: 2e-1, k: ['1', 1e1]}}]
settings: {gen_kwargs: {max_gen_toks: 1e2, until: null}}
""")
    content = yaml.safe_load(suite.read_text())
    assert content["models"][0]["model_args"]["train_tokens"] == "2e9"  # what YAML makes of it
    [cell] = plan(read_suite(suite), tmp_path)
    assert cell.task == "humaneval_mtp"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gen_kwargs": {"until": 10}}, "until=10, expected a text"),
        ({"gen_kwargs": {"temperature": "warm"}}, "temperature=warm, expected a number"),
        ({"device": "gpu"}, "device=gpu, expected cpu"),
    ],
)
def test_a_cell_s_settings_are_checked_before_anything_runs(settings, message):
    with pytest.raises(ValueError, match=f"humaneval_mtp: {message}"):
        cells(SHIPPED, [{"task": "humaneval_mtp", **settings}])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n_samples": 3, "temperature": 0.5, "k": [1, 10]}, "k=10 with n_samples=3; expected 1"),
        ({"n_samples": 3, "k": 1}, "greedy decoding"),
        ({"k": [1, 10]}, "k=10 with n_samples=1"),
    ],
)
def test_more_k_than_samples(metadata, message):
    with pytest.raises(ValueError, match=f"humaneval_mtp: .*{message}"):
        cells(SHIPPED, [{"task": "humaneval_mtp", "metadata": metadata}])


def test_a_task_s_own_samples_count():
    # humaneval_mtp_t0.1 draws 200 samples by itself.
    cells(SHIPPED, [{"task": "humaneval_mtp_t0.1", "metadata": {"k": [200]}}])
    with pytest.raises(ValueError, match="k=201 with n_samples=200"):
        cells(SHIPPED, [{"task": "humaneval_mtp_t0.1", "metadata": {"k": [201]}}])
