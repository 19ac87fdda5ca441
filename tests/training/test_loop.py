"""The loop: its schedule, the windows it reads, and that a killed run ends as an unbroken one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.training import loop
from mtp_harness.training.data import LOOKAHEAD, Batches, batches
from mtp_harness.training.loop import optimizers, train
from mtp_harness.training.recipe import Recipe

RECIPE = Recipe(
    steps=9,
    rows=2,
    context=24,
    short_context=12,
    short_share=0.5,
    peak_lr=5e-3,
    warmup=3,
    log_every=2,
    save_every=4,
)


def data(size=3000):
    return np.random.default_rng(5).integers(1, 128, size).astype(np.uint8)


def model(n=2, seed=0):
    torch.manual_seed(seed)
    config = MTPLlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=n + 1,
        num_attention_heads=2,
        num_key_value_heads=1,
        n_future_tokens=n,
        replicated_unembeddings=n > 1,
    )
    return MTPLlamaForCausalLM(config)


def run(network, folder, recipe=RECIPE, windows=None, report=lambda line: None, **more):
    return train(network, windows or batches(data(), recipe), recipe, folder, report, **more)


# ---------------------------------------------------------------- schedule


def test_schedule_in_closed_form():
    recipe = Recipe(steps=1000, warmup=100, peak_lr=2e-3, final_lr_ratio=0.05)
    assert [recipe.learning_rate(s) for s in (0, 9, 99)] == pytest.approx([2e-5, 2e-4, 2e-3])
    assert recipe.learning_rate(100) == pytest.approx(2e-3)
    half = recipe.learning_rate(550)  # half way down the cosine
    assert half == pytest.approx(2e-3 * (1 + 0.05) / 2)
    quarter = 2e-3 * (0.05 + 0.95 * (0.5 + math.sqrt(2) / 4))
    assert recipe.learning_rate(325) == pytest.approx(quarter)
    assert recipe.learning_rate(1000) == pytest.approx(0.05 * 2e-3)
    assert recipe.learning_rate(999) == pytest.approx(0.05 * 2e-3, rel=1e-3)
    rates = [recipe.learning_rate(s) for s in range(99, 1000)]
    assert rates == sorted(rates, reverse=True)
    assert Recipe(steps=10, warmup=0, peak_lr=1.0).learning_rate(0) == 1.0


def test_rates_are_those_the_optimizers_used(monkeypatch, tmp_path):
    made = []
    used = []

    def remember(network, recipe):
        made.extend(optimizers(network, recipe))
        for opt in made:
            opt.register_step_pre_hook(
                lambda opt, *_: used.append({group["lr"] for group in opt.param_groups})
            )
        return made

    monkeypatch.setattr(loop, "optimizers", remember)
    curve = run(model(), tmp_path)
    assert used == [{RECIPE.learning_rate(s)} for s in range(RECIPE.steps) for _ in made]
    assert [line["lr"] for line in curve] == [RECIPE.learning_rate(s) for s in (1, 3, 5, 7, 8)]
    assert [line["tokens"] for line in curve] == [s * 48 for s in (2, 4, 6, 8, 9)]


def test_every_parameter_has_one_optimizer_and_vectors_do_not_decay():
    network = model(4)
    muon, adamw = optimizers(network, RECIPE)
    groups = [*muon.param_groups, *adamw.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim == 2 else 0.0), name
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in in_muon}
    assert names == {n for n, _ in network.named_parameters() if "_proj" in n}


# ---------------------------------------------------------------- windows


def test_models_with_any_number_of_heads_read_the_same_windows(tmp_path):
    read = {1: [], 4: []}
    gradients = loop.backward_head_by_head

    def remember(network, tokens):
        read[network.n_future_tokens].append(tokens.clone())
        return gradients(network, tokens)

    for n in read:
        (tmp_path / str(n)).mkdir()
        run(model(n), tmp_path / str(n), backward=remember)
    assert len(read[1]) == len(read[4]) == RECIPE.steps
    for step, (one, four) in enumerate(zip(read[1], read[4], strict=True)):
        context = 12 if step < 4 else 24
        assert one.shape == (48 // context, context + 1)
        assert four.shape == (48 // context, context + 4)
        assert torch.equal(one, four[:, : context + 1])


def test_short_windows_come_first_and_are_runs_of_the_data():
    text = np.arange(200, dtype=np.uint8)
    windows = batches(text, replace(RECIPE, steps=10, short_share=0.3))
    shapes = [windows(step).shape for step in range(10)]
    assert shapes == [(4, 12 + LOOKAHEAD)] * 3 + [(2, 24 + LOOKAHEAD)] * 7
    for step in range(10):
        assert (np.diff(windows(step).astype(int)) == 1).all()
    assert not np.array_equal(windows(4), windows(5))
    assert np.array_equal(windows(4), Batches(text, 24, 2, LOOKAHEAD, 0)(4))


def test_short_windows_may_not_be_longer_than_the_context():
    with pytest.raises(ValueError, match=r"^--short-context 1024 with --context 512: .* lower it"):
        batches(data(), Recipe(steps=5, context=512))


# ---------------------------------------------------------------- kill and resume


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [4, 5, 7, 8])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(tmp_path, killed_at):
    whole, folder = model(), tmp_path / "killed"
    (tmp_path / "whole").mkdir()
    folder.mkdir()
    curve = run(whole, tmp_path / "whole")
    windows = batches(data(), RECIPE)

    def failing(step):
        if step == killed_at:
            raise Killed
        return windows(step)

    with pytest.raises(Killed):
        run(model(), folder, windows=failing)
    assert [path.name for path in folder.iterdir()] == ["state.pt"]

    seen = []
    resumed = model(seed=99)  # whatever it starts from, the state replaces it
    lines = []
    again = run(
        resumed, folder, windows=lambda s: (seen.append(s), windows(s))[1], report=lines.append
    )
    first = killed_at - killed_at % RECIPE.save_every
    assert seen == list(range(first, RECIPE.steps))
    for (name, one), other in zip(whole.state_dict().items(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name
    without_time = [{k: v for k, v in line.items() if k != "wall_s"} for line in again]
    assert without_time == [{k: v for k, v in line.items() if k != "wall_s"} for line in curve]
    assert lines == [line for line in again if line["step"] > first]
    seconds = [line["wall_s"] for line in again]
    assert seconds == sorted(seconds)


def test_a_finished_run_is_not_trained_further(tmp_path):
    recipe = replace(RECIPE, save_every=3)  # the last checkpoint is that of the last step
    first = model()
    curve = run(first, tmp_path, recipe)

    def refuse(step):
        raise AssertionError(f"step {step} of a finished run")

    again = model(seed=1)
    assert run(again, tmp_path, recipe, refuse) == curve
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


@pytest.fixture
def half_way(tmp_path):
    """A folder with the state of a run that was killed."""
    windows = batches(data(), RECIPE)

    def failing(step):
        if step == 5:
            raise Killed
        return windows(step)

    with pytest.raises(Killed):
        run(model(), tmp_path, windows=failing)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "named"),
    [({"peak_lr": 1e-3}, "peak_lr"), ({"seed": 1, "steps": 12}, "steps, seed")],
)
def test_another_recipe_is_refused(half_way, change, named):
    with pytest.raises(ValueError, match=rf"state\.pt belongs to a run with another {named}; "):
        run(model(), half_way, replace(RECIPE, **change))


def test_another_model_is_refused_in_a_sentence(half_way):
    with pytest.raises(
        ValueError, match=r"state\.pt belongs to a run with a model of another"
    ) as e:
        run(model(4), half_way)
    assert "\n" not in str(e.value)


def test_divergence_is_named_with_its_remedy(tmp_path):
    network = model()
    with torch.no_grad():
        network.lm_head.weight[3] = float("inf")
    with pytest.raises(ValueError) as caught:
        run(network, tmp_path)
    message = str(caught.value)
    assert "step 2" in message and "lower --peak-lr (now 0.005)" in message
    assert "\n" not in message
    assert not (tmp_path / "state.pt").exists()


def test_gradients_are_clipped_before_the_step(monkeypatch, tmp_path):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def remember(parameters, limit):
        parameters = list(parameters)
        before = clip(parameters, limit)
        norms.append(
            (float(before), float(torch.stack([p.grad.norm() for p in parameters]).norm()))
        )
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", remember)
    curve = run(model(), tmp_path, replace(RECIPE, clip=0.05, log_every=1))
    assert all(after == pytest.approx(0.05, rel=1e-3) for before, after in norms)
    assert [line["grad_norm"] for line in curve] == [round(before, 4) for before, _ in norms]


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="steps=0, expected at least 1"):
        Recipe(steps=0)


# ---------------------------------------------------------------- on GPUs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpus_train_as_the_cpu_does(tmp_path):
    # On the second GPU, too: torch has one stream for all captures, on the GPU of the first.
    places = ["cpu", *(f"cuda:{i}" for i in range(min(2, torch.cuda.device_count())))]
    recipe = replace(RECIPE, peak_lr=3e-2)
    text = (np.arange(3000) % 4 + 97).astype(np.uint8)  # four letters in turn: soon learned
    losses, moves = [], []
    for place in places:
        network = model().to(place)
        before = [p.detach().clone() for p in network.model.parameters()]
        curve = run(network, tmp_path / place[-1], recipe, batches(text, recipe))
        losses.append(np.array([line["loss_nats"] for line in curve]))
        pairs = zip(network.model.parameters(), before, strict=True)
        moves.append(torch.cat([(p.detach() - b).flatten().cpu() for p, b in pairs]))
    assert (losses[0][0] - losses[0][-1]).min() > 2
    for found, moved in zip(losses[1:], moves[1:], strict=True):  # in bfloat16
        np.testing.assert_allclose(found, losses[0], atol=0.3)
        assert torch.cosine_similarity(moved, moves[0], 0) > 0.9
