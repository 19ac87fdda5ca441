"""`mtp_solutions` against lm_eval's log-likelihood and plain loops."""

import json
import math

import pytest
from lm_eval.api.instance import Instance

from mtp_harness.data import solutions

from ..data.code_fixtures import MBPP
from . import runs

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def a{number}(b):\n    """{doc}"""\n',
        "entry_point": f"a{number}",
        "canonical_solution": f"    return b{number}\n",
        "test": "",
    }
    for number, doc in enumerate(["", "a", "ab = 1", "(ab)", "ü"])
]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.delenv("MTP_HARNESS_DATA", raising=False)


def write(folder, name, rows):
    lines = [json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def both(tmp_path, offline):
    write(tmp_path, "HumanEval.jsonl", HUMANEVAL)
    return str(write(tmp_path, "mbpp.jsonl", MBPP))


@pytest.mark.parametrize("make", [lambda: runs.tiny(4, context=512), runs.sequential_model])
def test_head_1_is_the_log_likelihood_and_all_heads_are_plain_loops(both, tmp_path, make):
    model = make()
    n = model.n_future_tokens
    lm = runs.harness_model(model, tmp_path / "model", 2, max_length=400)
    results = runs.run(lm, "mtp_solutions", data_dir=both)
    found = runs.table(results, "mtp_solutions", "by_offset")
    behind = runs.counts(results, "mtp_solutions", "by_offset")
    docs = [sample["doc"] for sample in results["samples"]["mtp_solutions"]]
    assert [doc["name"] for doc in docs if doc["data_set"] == "mbpp"] == ["MBPP/11", "MBPP/12"]
    for name in ("humaneval", "mbpp"):
        own = [doc for doc in docs if doc["data_set"] == name]
        requests = [
            Instance("loglikelihood", {}, (doc["context"], doc["text"]), i, metadata=("t", i, 1))
            for i, doc in enumerate(own)
        ]
        theirs = -sum(nats for nats, _ in lm.loglikelihood(requests))
        scored = sum(len(("\n" + doc["text"]).encode()) for doc in own)  # every prompt ends in one
        bits = found[name, 1, "bits_per_byte"]
        assert bits == pytest.approx(theirs / scored / math.log(2), rel=1e-5)
        for i in range(1, n + 1):
            nats, right = [], []
            for doc in own:
                tokens, p = runs.reader(model, doc["context"] + doc["text"], 400)
                for j in range(len(doc["context"].encode()), len(tokens)):
                    q = p(j - i, i)
                    nats.append(-math.log(q[tokens[j]]))
                    right.append(runs.best(q) == tokens[j])
            assert found[name, i, "cross_entropy"] == pytest.approx(sum(nats) / scored, rel=2e-5)
            assert found[name, i, "accuracy"] == pytest.approx(sum(right) / scored)
            assert behind[name, i, "accuracy"] == len(nats) == scored
            flat = results["results"]["mtp_solutions"][f"{name}_bits_per_byte_{i},none"]
            assert flat == pytest.approx(sum(nats) / scored / math.log(2), rel=2e-5)


def test_without_mbpp_humaneval_is_read_and_the_results_say_so(tmp_path, offline, caplog):
    write(tmp_path, "HumanEval.jsonl", HUMANEVAL)
    lm = runs.harness_model(runs.tiny(2, context=512), tmp_path / "model", max_length=400)
    results = runs.run(lm, "mtp_solutions", data_dir=str(tmp_path))
    documents = results["config"]["mtp"]["documents"]["mtp_solutions"]
    assert documents["humaneval"]["n_documents"] == 5
    absent = {"sha256": None, "n_documents": 0, "bytes": 0, "source": "not at hand"}
    assert documents["mbpp"] == absent
    assert not any("mbpp" in name for name in results["results"]["mtp_solutions"])
    assert "mbpp is left out: no MBPP" in caplog.text and "MTP_HARNESS_DATA" in caplog.text


def test_without_both_there_is_one_sentence(tmp_path, offline, monkeypatch):
    monkeypatch.setattr("mtp_harness.data.humaneval._packaged", lambda: None)
    with pytest.raises(ValueError) as caught:
        runs.run(runs.harness_model(runs.tiny(2), tmp_path / "model"), "mtp_solutions")
    message = str(caught.value)
    assert message.startswith("mtp_solutions: no HumanEval") and "no MBPP" in message
    assert "\n" not in message


def test_quick_reads_problems_evenly(tmp_path, offline):
    rows = [{**HUMANEVAL[0], "task_id": f"HumanEval/{number}"} for number in range(160)]
    write(tmp_path, "HumanEval.jsonl", rows)
    names = solutions.load(quick=True, data_dir=str(tmp_path))["test"]["name"]
    assert list(names) == [f"HumanEval/{number}" for number in range(0, 160, 4)]


def test_real_solutions(shared_data, offline):
    """All of HumanEval and MBPP's test split, with the prompt of `mbpp_mtp`."""
    import yaml
    from jinja2 import Template

    from mtp_harness import tasks_dir

    rows = solutions.load(data_dir=str(shared_data))["test"]
    sets = list(rows["data_set"])
    assert (sets.count("humaneval"), sets.count("mbpp")) == (164, 500)
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda *_: None)
    config = yaml.load((tasks_dir() / "mbpp/mbpp_mtp.yaml").read_text(), loader)
    from mtp_harness.data import mbpp

    problem = next(r for r in mbpp.read_problems(str(shared_data)) if r["task_id"] == 11)
    row = next(row for row in rows if row["name"] == "MBPP/11")
    # jinja drops one line end at the end of a template; the harness puts it back.
    assert row["context"].rstrip("\n") == Template(config["doc_to_text"]).render(**problem).rstrip(
        "\n"
    )
    assert row["text"] == problem["code"]
