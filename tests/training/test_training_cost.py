"""The study of what a training step costs: its two ways have the same gradients."""

import json

import torch

from ..scripts import ROOT, script

FILE = ROOT / "figures" / "studies" / "training_cost.py"


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
