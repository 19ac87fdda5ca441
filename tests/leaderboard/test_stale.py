"""Stale heads: disjoint intervals of agreement with head 1."""

import runpy
from pathlib import Path

import pytest
import torch

from mtp_harness.leaderboard import runs
from mtp_harness.leaderboard.stale import heads
from mtp_harness.leaderboard.table import build
from mtp_harness.models.load import load_model

from .result_files import write_run

COLUMNS = ["data_set", "offset", "metric", "value", "low", "high", "count"]


def write(folder, label, *agreements):
    rows = [["code", 1, "tf_agree", 1.0, 1.0, 1.0, 9], ["code", 2, "accuracy", 0, 0, 0, 9]]
    rows += [
        ["code", i, "tf_agree", (low + high) / 2, low, high, 9]
        for i, (low, high) in enumerate(agreements, 2)
    ]
    tables = {"by_offset": {"columns": COLUMNS, "rows": rows}}
    write_run(folder / label, label, "mtp_heads", {"accuracy_1": [0.5]}, tables=tables)


def test_each_head_by_its_own_interval(tmp_path):
    write(tmp_path, "base", (0.80, 0.84), (0.70, 0.74), (0.60, 0.64))
    write(tmp_path, "tuned", (0.70, 0.79), (0.72, 0.80), (0.65, 0.70))
    found = heads(build(runs.find([str(tmp_path)]), "base"))
    assert [(one.offset, one.verdict) for one in found] == [
        (2, "stale"),
        (3, "alike"),
        (4, "fresh"),
    ]
    assert "head 2 on code: agrees with head 1 on 0.745 of tokens, 0.820 before: stale" in str(
        found[0]
    )


def test_nothing_without_a_baseline(tmp_path):
    write(tmp_path, "base", (0.8, 0.9))
    assert heads(build(runs.find([str(tmp_path)]))) == []


@pytest.mark.slow
def test_the_recipe_moves_the_trunk_and_leaves_the_heads(tmp_path):
    recipe = runpy.run_path(Path(__file__).parents[2] / "examples/stale_heads.py")
    recipe["finetune"](tmp_path / "tuned", steps=1)
    before = load_model("mtp-bytes-n4", torch.float32).state_dict()
    after = load_model(str(tmp_path / "tuned"), torch.float32).state_dict()
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert any(name.startswith("model.layers.0.") for name in moved)
    assert not any(name.startswith(("extra_heads.", "extra_lm_heads.")) for name in moved)
