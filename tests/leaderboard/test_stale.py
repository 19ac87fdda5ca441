"""Stale heads: agreement with head 1, paired by document."""

import runpy
from pathlib import Path

import pytest
import torch

from mtp_harness.leaderboard.stale import heads
from mtp_harness.leaderboard.table import build
from mtp_harness.models.load import load_model
from mtp_harness.results import run

from .result_files import write_run

TOKENS = 100


def write(folder, label, **agreeing):
    """Write a run whose heads agree with head 1 on so many of each document's hundred tokens."""
    scores = {
        f"code_tf_agree_{offset[-1]}": [(count, TOKENS) for count in counts]
        for offset, counts in agreeing.items()
    }
    write_run(folder / label, label, "mtp_heads", scores, generation=False)


def test_each_head_by_its_paired_difference(tmp_path):
    # Documents differ far more than models do: intervals of each model alone would all meet.
    write(tmp_path, "base", h2=[30, 60, 90, 50], h3=[20, 50, 80, 40], h4=[10, 40, 70, 30])
    write(tmp_path, "tuned", h2=[28, 60, 87, 49], h3=[21, 49, 81, 39], h4=[12, 43, 71, 31])
    found = heads(build(run.find([str(tmp_path)]), "base"))
    assert [(one.offset, one.verdict) for one in found] == [
        (2, "stale"),
        (3, "alike"),
        (4, "fresh"),
    ]
    stale = found[0]
    assert (stale.before, stale.after) == (230 / 400, 224 / 400)
    assert stale.low < -6 / 400 < stale.high < 0
    assert "head 2 on code: agrees with head 1 on 0.560 of tokens, 0.575 before (-0.015 [" in str(
        stale
    )


def test_nothing_without_a_baseline(tmp_path):
    write(tmp_path, "base", h2=[80, 90])
    assert heads(build(run.find([str(tmp_path)]))) == []


@pytest.mark.slow
def test_the_recipe_moves_the_trunk_and_leaves_the_heads(tmp_path):
    recipe = runpy.run_path(Path(__file__).parents[2] / "examples/stale_heads.py")
    recipe["finetune"](tmp_path / "tuned", steps=1)
    before = load_model("mtp-bytes-n4", torch.float32).state_dict()
    after = load_model(str(tmp_path / "tuned"), torch.float32).state_dict()
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert any(name.startswith("model.layers.0.") for name in moved)
    assert not any(name.startswith(("extra_heads.", "extra_lm_heads.")) for name in moved)
