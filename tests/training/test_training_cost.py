"""The study of what a training step costs: its two ways have the same gradients."""

import json

import pytest
import torch

from ..scripts import ROOT, script

FILE = ROOT / "figures" / "studies" / "training_cost.py"
OUTCOME = FILE.with_name("training_cost_outcome.py")


def test_both_ways_have_the_same_losses_and_gradients():
    module = script(FILE)
    one = module.Contender(4, module.TINY, rows=2, context=8, device="cpu")
    one.model.double()
    found = []
    for way in module.WAYS.values():
        losses = way(one.model, one.tokens)
        found.append((losses, [p.grad.clone() for p in one.model.parameters()]))
        one.model.zero_grad()
    (first, its), (second, others) = found
    assert first.shape == (4,) and torch.allclose(first, second, atol=1e-12)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(its, others, strict=True))


def test_the_study_runs_and_its_models_have_equal_parameters(tmp_path, capsys):
    module, out = script(FILE), tmp_path / "new" / "cost.json"
    module.main(["-o", str(out), "--tiny", "--repeats", "2", "--rows", "2", "--context", "8"])
    content = json.loads(out.read_text())
    assert len(set(content["parameters"].values())) == 1
    assert [(run["n"], run["way"], len(run["repeats"])) for run in content["runs"]] == [
        (n, way, 2) for n in (1, 2, 4, 8) for way in ("head by head", "at once")
    ]
    assert "n = 8, at once:" in capsys.readouterr().out


def written(times, memory):
    """Return what the study writes, of seconds and bytes for n = 1, 2 and 4, in two repeats."""
    runs = [
        {
            "n": n,
            "way": "head by head",
            "repeats": [{"step_s": seconds * t, "added_bytes": added} for t in (1.0, 3.0)],
        }
        for n, seconds, added in zip((1, 2, 4), times, memory, strict=True)
    ]
    return {"runs": runs}


@pytest.mark.parametrize(
    ("times", "memory", "said"),
    [
        ((2, 2.0, 2.1), (100, 90, 105), "agree"),
        ((2, 2.0, 2.2), (100, 90, 100), "disagree"),
        ((2, 2.0, 2.0), (100, 90, 126), "disagree"),
        ((2, 2.0, 2.0), (100, 90, 106), "inconclusive"),
    ],
)
def test_the_outcome_is_the_rule_s(times, memory, said):
    module = script(OUTCOME)
    found = module.costs(written(times, memory))
    assert found[4, "head by head"].time.value == pytest.approx(times[2] / times[0])
    assert found[4, "head by head"].memory == pytest.approx(memory[2] / memory[0])
    assert module.verdict(found) == said


def test_times_that_vary_are_inconclusive():
    content = written((2, 2, 2), (100, 100, 100))
    for run in content["runs"][1:]:  # 1.0 and 1.2 times n = 1's
        run["repeats"][1]["step_s"] *= 1.2
    module = script(OUTCOME)
    assert module.verdict(module.costs(content)) == "inconclusive"


def test_the_committed_outcome_and_table_are_those_of_the_run(tmp_path, capsys):
    kept = OUTCOME.parent / "results"
    assert script(OUTCOME).main([str(kept / "training_cost.json"), "-o", str(tmp_path)]) == 0
    assert "outcome: disagree" in capsys.readouterr().out
    assert (tmp_path / "table_s5.csv").read_text() == (kept / "table_s5.csv").read_text()
    assert (tmp_path / "table_s5.png").stat().st_size > 10_000


def test_a_cpu_s_times_are_refused(tmp_path, capsys):
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(written((1, 1, 1), (1, 1, 1)) | {"hardware": {"cpu": "some"}}))
    with pytest.raises(SystemExit, match="2"):
        script(OUTCOME).main([str(path)])
    assert "measured on a CPU" in capsys.readouterr().err
