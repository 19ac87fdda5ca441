"""The study of sequential and parallel heads: what it trains, and that its command runs."""

import json

import pytest
import torch

from mtp_harness.lm import MTPLM

from ..scripts import ROOT, script
from .studies import run

STUDY = ROOT / "figures" / "studies"
SEQUENTIAL = ("chained", "reused")


@pytest.fixture(scope="module")
def study():
    return script(STUDY / "sequential_and_parallel.py")


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("width", [64, 192, 384])
def test_parallel_heads_and_chained_modules_have_equal_parameters(study, width):
    sizes = {kind: size(study.build(kind, width, 0, 4096)) for kind in study.MODULES}
    assert abs(sizes["chained"] / sizes["parallel"] - 1) < 0.01
    assert sizes["reused"] < 0.9 * sizes["chained"]


def test_head_1_has_as_many_layers_in_all_kinds(study):
    parallel = study.build("parallel", 64, 0, 64)
    assert len(parallel.model.layers) == 9 and len(parallel.extra_heads) == 3
    for kind, n_modules in (("chained", 3), ("reused", 1)):
        model = study.build(kind, 64, 0, 64)
        assert len(model.base.layers) == 9 and len(model.modules_.layers) == n_modules
        assert model.n_future_tokens == 4 and model.reused is (kind == "reused")


def normed(states, norm):
    return norm.weight * states / (states.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def by_hand(model, row, end):
    """The four losses at the last position of a text that ends there, by DeepSeek-V3's formulas."""
    states = normed(model.base(row[None, :end]).last_hidden_state, model.norm)
    rotary = model.base.rotary_emb(states, torch.arange(end)[None])
    losses = []
    for offset in range(1, 5):
        if offset > 1:
            layer = model.modules_.layers[0 if model.reused else offset - 2]
            read = model.base.embed_tokens.weight[row[None, offset - 1 : offset - 1 + end]]
            both = torch.cat([normed(read, layer.enorm), normed(states, layer.hnorm)], -1)
            found = layer.mtp_block(both @ layer.eh_proj.weight.T, position_embeddings=rotary)
            states = normed(found, layer.post_norm)
        scores = model.main.lm_head.weight @ states[0, -1]
        losses.append(scores.logsumexp(0) - scores[row[end - 1 + offset]])
    return torch.stack(losses)


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_the_loss_of_modules_is_the_plain_sum(study, kind, in_float64):
    model = study.build(kind, 64, 3, 32).cpu().double()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # away from 1, so that a norm left out is noticed
            parameter.data += 0.3 * torch.randn_like(parameter)
    rows = torch.randint(256, (2, 5 + 4), generator=torch.Generator().manual_seed(1))
    each = [by_hand(model, row, end) for row in rows for end in range(1, 6)]
    losses = torch.stack(each).mean(0)
    losses.sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    found = study.backward(kind)(model, rows)
    assert torch.allclose(found, losses.detach(), rtol=1e-5)
    for name, parameter in model.named_parameters():
        largest = expected[name].abs().max()
        assert largest > 1e-6, f"{name} has no gradient to compare"
        # transformers takes norms in float32
        assert (parameter.grad - expected[name]).abs().max() < 1e-4 * largest, name


def logits_of(model, tokens):
    """Return the logits of all heads, [n, B, T, V]; modules are chained."""
    length, state = tokens.shape[1] - model.n_future_tokens, None
    trunk = state = model.trunk(tokens[:, :length])
    found = []
    for offset in range(1, model.n_future_tokens + 1):
        read = tokens[:, offset - 1 : offset - 1 + length]
        state = model.head(offset, state if model.sequential else trunk, read)
        found.append(model.logits(offset, state))
    return torch.stack(found)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["parallel", *SEQUENTIAL])
def test_what_is_saved_is_what_the_harness_loads(study, kind, tmp_path):
    model = study.build(kind, 64, 0, 64).cpu().bfloat16().float().eval()
    tokens = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(2))
    before = logits_of(model, tokens)
    study.save(model, tmp_path)
    drafter = {} if kind == "parallel" else {"drafter": str(tmp_path / "modules")}
    lm = MTPLM(str(tmp_path), device="cpu", dtype="float32", **drafter)
    assert torch.allclose(logits_of(lm.decoder().model, tokens), before, atol=1e-5)


@pytest.mark.slow
def test_the_command_trains_measures_and_is_resumed(tmp_path, capsys):
    command = ["sequential_and_parallel.sh", tmp_path, "--tiny", "1"]
    done = run(*command, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = tmp_path / "results"
    records = [json.loads(path.read_text()) for path in sorted(kept.glob("training/*.json"))]
    assert [len(record["curve"][-1]["loss_nats"]) for record in records] == [4, 4, 4]
    assert len({record["recipe"]["data_sha256"] for record in records}) == 1
    files = {path: path.stat().st_mtime_ns for path in kept.glob("*/mtp_heads+*/*")}
    assert len(files) == 9
    assert run(*command).returncode == 0  # nothing is done again
    assert files == {path: path.stat().st_mtime_ns for path in kept.glob("*/mtp_heads+*/*")}
    assert script(STUDY / "drafts_compared.py").main([str(kept)]) == 0
    said = capsys.readouterr().out
    assert "chained minus parallel, undecided" in said
    lacks = "9 measurements are missing, first mtp_speculative of parallel-64, seed 0"
    assert f"outcome: unfinished: {lacks}" in said
