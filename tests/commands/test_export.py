"""The speculation profile against its schema and numbers worked out by hand."""

import json

import pytest

from mtp_harness.cli import main
from mtp_harness.commands.export import speculation_profile

KEYS = [  # of schema 1.0, in its order
    "schema_version",
    "measured",
    "method",
    "draft_checkpoint",
    "target_model",
    "num_speculative_tokens",
    "block_size",
    "max_supported_k",
    "verification_method",
    "conditional_accept_rates",
    "marginal_accept_rates",
    "mean_accept_length",
    "mean_accept_length_per_request",
    "accept_length_model",
    "accept_length_by_k",
    "acceptance_length_histogram",
    "per_category",
    "measurement_conditions",
    "validation",
]


def run(**changed):
    """`config.mtp` of a run: steps by verified drafts, and each request's mean accept length."""
    steps = {
        ("code", 2): ([2, 8], 1.8, 5),
        ("code", 3): ([2, 0, 6], 2.4, 5),
        ("prose", 2): ([5, 5], 1.5, 3),
        ("prose", 3): ([4, 2, 2], 1.6, 3),
    }
    histogram = [
        [category, k, verified, "steps", n, None, None, n]
        for (category, k), (counts, _, _) in steps.items()
        for verified, n in enumerate(counts)
    ]
    by_k = [
        [category, k, "accept_length_mean", mean, None, None, n]
        for (category, k), (_, mean, n) in steps.items()
    ]
    values = ["metric", "value", "low", "high", "count"]
    tables = {
        "histogram": {"columns": ["category", "k", "n_verified", *values], "rows": histogram},
        "by_k": {"columns": ["category", "k", *values], "rows": by_k},
    }
    return {
        "pretrained": "/home/me/models/org/model",
        "n_future_tokens": 3,
        "draft_heads": 3,
        "heads": "parallel",
        "lossless": True,
        "tables": {"mtp_speculative": tables},
        "documents": {"mtp_speculative": {"code": {"n_documents": 5}}},
    } | changed


def test_numbers_by_hand():
    profile = speculation_profile(run())
    assert list(profile) == KEYS and profile["schema_version"] == "1.0"
    # 16 steps: 6 of length 1, 2 of length 2, 8 of length 3.
    assert profile["acceptance_length_histogram"] == {"1": 6, "2": 2, "3": 8}
    assert profile["marginal_accept_rates"] == [10 / 16, 8 / 16]
    assert profile["conditional_accept_rates"] == [10 / 16, 8 / 10]
    assert profile["mean_accept_length"] == (6 + 4 + 24) / 16
    assert profile["mean_accept_length_per_request"] == (5 * 2.4 + 3 * 1.6) / 8
    assert profile["num_speculative_tokens"] == profile["max_supported_k"] == 2
    assert profile["accept_length_by_k"] == {"1": (7 + 2 * 13) / 20, "2": 34 / 16}
    code = profile["per_category"]["code"]
    # No step ended after one draft: the survival does not fall there.
    assert code["marginal_accept_rates"] == [0.75, 0.75]
    assert code["conditional_accept_rates"] == [0.75, 1.0]
    assert code["mean_accept_length"] == (2 + 18) / 8 and code["num_requests"] == 5
    check = profile["validation"]
    assert check["mean_consistency"]["passed"] and check["marginal_monotonicity"]["passed"]
    assert check["mean_consistency"]["implied_mean_accept_length"] == 1 + 10 / 16 + 8 / 16
    assert profile["target_model"]["id"] == "org/model"  # no folder of this machine


def test_fewer_heads():
    profile = speculation_profile(run(), 2)
    assert profile["num_speculative_tokens"] == 1 and profile["max_supported_k"] == 2
    assert profile["marginal_accept_rates"] == [13 / 20]


def test_a_run_of_vllm_with_fewer_heads_than_the_checkpoint_has():
    """Its k end at the run's `draft_heads`."""
    mtp = run(n_future_tokens=4, engine={"name": "vllm", "version": "0.32.0"}, method="eagle3")
    profile = speculation_profile(mtp)
    assert profile["num_speculative_tokens"] == 2 and profile["max_supported_k"] == 3
    assert profile["accept_length_by_k"] == speculation_profile(run())["accept_length_by_k"]
    assert profile["method"] == "eagle3"
    assert profile["measurement_conditions"]["engine"] == "vllm 0.32.0"
    assert speculation_profile(run())["measurement_conditions"]["engine"] == "mtp_harness"
    with pytest.raises(ValueError, match="draft_heads=4 makes no drafts .* expected 2 to 3"):
        speculation_profile(mtp, 4)


@pytest.mark.parametrize(
    ("changed", "k", "said"),
    [
        ({}, 4, "draft_heads=4 makes no drafts to describe here, expected 2 to 3"),
        ({}, 1, "draft_heads=1 makes no drafts to describe here, expected 2 to 3"),
        ({"n_future_tokens": 1}, None, "expected a model with more than one head"),
        ({"lossless": False}, None, "accepted drafts unverified"),
    ],
)
def test_what_has_no_profile(changed, k, said):
    with pytest.raises(ValueError, match=said):
        speculation_profile(run(**changed), k)


def written(folder, name, mtp):
    path, tasks = folder / name, {"mtp_speculative": {}}
    path.write_text(json.dumps({"results": tasks, "configs": tasks, "config": {"mtp": mtp}}))
    return path


def export(*arguments):
    return main(["export", *map(str, arguments), "--format", "speculation-profile"])


def test_command_line(tmp_path, capsys):
    path = written(tmp_path, "results_2026-01-01T00-00-00.json", run())
    written(tmp_path, "results_2026-01-02T00-00-00.json", run(tables={"mtp_heads": {}}))
    assert export(tmp_path) == 0 == export(path, "-o", tmp_path / "new" / "profile.json")
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "new" / "profile.json").read_text())
    assert shown["measurement_conditions"]["results"] == path.name
    assert shown["acceptance_length_histogram"]["3"] == 8


def test_a_damaged_file_is_named_and_the_other_run_is_exported(tmp_path, capsys):
    written(tmp_path, "results_1.json", run())
    (tmp_path / "results_2.json").write_text('{"config"')
    assert export(tmp_path) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) and "results_2.json is not JSON" in err


def test_wrong_places_end_in_a_sentence(tmp_path, capsys):
    assert export(tmp_path / "none") == 2
    assert export(tmp_path) == 2
    (tmp_path / "results_x.json").write_text("[]")
    assert export(tmp_path) == 2
    (tmp_path / "results_x.json").unlink()
    written(tmp_path, "results_1.json", run())
    written(tmp_path, "results_2.json", run())
    assert export(tmp_path) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert "expected a results_….json or a folder" in said[0]
    assert "holds no run of mtp_speculative" in said[1]
    assert "expected a results file of lm_eval" in said[2]
    assert "holds 2 runs of mtp_speculative, expected one" in said[3]
