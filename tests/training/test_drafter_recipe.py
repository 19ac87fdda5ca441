"""The recipe of the shipped drafters: what it trains stands on `mtp-bytes-n1`."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from mtp_harness.models.checkpoints.trunk_folder import Trunk
from mtp_harness.models.load import load_model, resolve

from ..scripts import EXAMPLES, script


@pytest.fixture(scope="module")
def recipe():
    return script(EXAMPLES / "drafter_training.py")


@pytest.fixture(scope="module", params=["eagle3", "medusa"])
def case(request, recipe):
    """The kind of a drafter, and the trunk with one."""
    torch.manual_seed(1)
    trunk = Trunk.of(Path(resolve(recipe.TRUNK))).loaded(torch.float64).requires_grad_(False)
    model = recipe.KINDS[request.param][0](trunk).double()
    if request.param == "medusa":  # its heads begin as head 1
        torch.nn.init.normal_(model.heads[0].layers[0].weight, std=0.05)
    return request.param, model


def by_hand(model, text, at, n, distil):
    """Return the losses of a position's drafts; each is read from the beginning of the text."""
    found, trunk = [], model.trunk(text[None])  # [1, T, D]
    said = model.logits(1, model.head(1, trunk))[0]  # [T, V]
    for offset in range(2, n + 1):
        if model.sequential:  # the drafter, over the text up to `at` and then over its own states
            state = model.drafter.fuse(trunk[..., model._width :])[:, : at + 1]
            for chain in range(offset - 1):
                read = text[1 : at + 2 + chain][None]
                out = model.run(state, read, None, None)
                state = torch.cat([state, out[:, -1:]], 1)
            logits = model.logits(2, state)[0, -1]
        else:
            logits = model.logits(offset, model.head(offset, trunk[:, at]))[0]
        target = said[at + offset - 1].softmax(-1) if distil else text[at + offset]
        found.append(float(cross_entropy(logits, target)))
    return found


@torch.no_grad()
def test_losses_are_those_of_drafting(recipe, case):
    kind, model = case
    distil = recipe.KINDS[kind][1]
    n, text = model.n_future_tokens, torch.tensor(list(b"def double(x):\n    return 2"))
    length = len(text) - n
    expected = [by_hand(model, text, at, n, distil) for at in range(length)]
    first = log_softmax(model.logits(1, model.head(1, model.trunk(text[None])))[0], -1)
    nats = -first[torch.arange(length), text[1 : length + 1]].mean()
    found = recipe.losses(model, text[None], distil)
    assert float(found[0]) == pytest.approx(float(nats), rel=1e-9)
    for index, loss in enumerate(found[1:]):
        mean = sum(row[index] for row in expected) / length
        assert float(loss) == pytest.approx(mean, rel=1e-9)


def test_the_trunk_has_no_gradients(recipe, case):
    kind, model = case
    model.zero_grad()
    recipe.backward(recipe.KINDS[kind][1], model, torch.arange(24)[None])
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(name.startswith(("main.", "norm.")) for name in trained)


@pytest.mark.parametrize("kind", ["eagle3", "medusa"])
def test_what_is_trained_is_loaded_equal(recipe, kind, tmp_path):
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_bytes(b"def double(x):\n    return 2 * x\n\n" * 100)
    options = ["--kind", kind, "--steps", "4", "--context", "16", "--rows", "2"]
    saved, kept = [], recipe.KINDS[kind][2]
    build, distil, _ = recipe.KINDS[kind]
    recipe.KINDS[kind] = (
        build,
        distil,
        lambda model, folder: (saved.append(model), kept(model, folder)),
    )
    recipe.main([str(out), "--data", str(text), *options])
    recipe.KINDS[kind] = (build, distil, kept)
    record = json.loads((out / "training.json").read_text())
    [model] = saved
    sizes = [p.numel() for p in model.parameters() if p.requires_grad]
    assert record["parameters"] == sum(sizes) < 5e5 and record["curve"][-1]["step"] == 4
    loaded = load_model(recipe.TRUNK, torch.float32, drafter=str(out))
    assert loaded.n_future_tokens == 4
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in loaded.named_parameters():
        if name in mine:
            assert torch.equal(parameter, mine[name].cpu().float()), name
    assert mine.keys() <= dict(loaded.named_parameters()).keys()
