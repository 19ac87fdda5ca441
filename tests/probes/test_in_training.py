"""`evaluate_heads` against a plain loop, in a training loop, wrapped, padded, and in Trainer."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mtp_harness import evaluate_heads

from ..decode.models_for_tests import example, random_llama
from .test_teacher_forced import logits_at, random_tokens


def by_hand(model, rows):
    """The same from logits of one state at a time; loss in nats from float64 log_softmax."""
    n = model.n_future_tokens
    right, loss, agree = ([0.0] * n for _ in range(3))
    n_states, kept, steps = 0, 0, 0
    for tokens in rows:
        said = {}
        for t in range(len(tokens)):
            for i in range(1, n + 1):
                if t + i <= len(tokens) - 1 or i == 1:
                    said[t, i] = logits_at(model, tokens, t, i).double()
        best = {place: int(one.argmax()) for place, one in said.items()}
        for t in range(len(tokens) - n):
            n_states += 1
            for i in range(1, n + 1):
                target = int(tokens[t + i])
                right[i - 1] += best[t, i] == target
                loss[i - 1] -= float(said[t, i].log_softmax(-1)[target])
                agree[i - 1] += best[t, i] == best[t + i - 1, 1]
        at = 0  # x[at + 1] is pending: every step emits it, the right drafts behind it, one more
        while at < len(tokens) - 2:
            drafts = 0
            while drafts + 2 <= n and best.get((at, drafts + 2)) == int(tokens[at + drafts + 2]):
                drafts += 1
                if at + drafts + 2 > len(tokens) - 1:
                    break
            moved = min(1 + drafts, len(tokens) - 2 - at)
            at, kept, steps = at + moved, kept + moved, steps + 1
    found = {"text_walk_tokens_per_forward": kept / steps, "n_states": n_states}
    for i in range(n):
        found[f"accuracy_{i + 1}"] = right[i] / n_states
        found[f"loss_{i + 1}"] = loss[i] / n_states
        if i:
            found[f"agreement_{i + 1}"] = agree[i] / n_states
    return found


MODELS = {"parallel": lambda: random_llama(3), "sequential": lambda: example("sequential_toy")}


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_a_plain_loop_whatever_the_batches(name):
    model = MODELS[name]()
    lengths = (12, 9, 13, 3, 11, 14, 10, 12)
    rows = [random_tokens(1, length, seed=place)[0] for place, length in enumerate(lengths)]
    expected = by_hand(model, rows)
    assert expected["accuracy_3"] > 0 and (name == "sequential" or expected["agreement_2"] > 0)
    assert expected["text_walk_tokens_per_forward"] > 1
    longest = max(map(len, rows))
    padded = torch.stack([torch.nn.functional.pad(r, (0, longest - len(r)), value=7) for r in rows])
    mask = torch.stack([torch.arange(longest) < len(row) for row in rows]).long()
    batches = [
        {"input_ids": padded[at : at + 2], "attention_mask": mask[at : at + 2], "labels": padded}
        for at in range(0, len(rows), 2)
    ]
    assert evaluate_heads(model, batches) == pytest.approx(expected, rel=1e-6)
    one_by_one = [row[None] for row in rows]
    assert evaluate_heads(model, one_by_one) == pytest.approx(expected, rel=1e-6)


def test_training_goes_on_as_if_nothing_had_happened():
    model = random_llama(3).float().train()
    model.model.layers[0].eval()  # part of it was frozen by its owner
    tokens = random_tokens(2, 12)
    modes = [module.training for module in model.modules()]
    loss = model.next_token_logits(tokens).square().mean()
    found = evaluate_heads(model, [tokens])
    loss.backward()  # the graph from before is whole
    assert [module.training for module in model.modules()] == modes
    assert found["accuracy_1"] == evaluate_heads(model, [tokens])["accuracy_1"]


def test_offsets_choose_what_is_reported():
    model = example("parallel_toy")
    found = evaluate_heads(model, [random_tokens(2, 12)], offsets=(2,))
    assert {"accuracy_2", "loss_2", "agreement_2"} < found.keys() and "accuracy_1" not in found
    assert found["n_states"] == 2 * 10


def test_a_drafter_is_put_on_the_model():
    trunk = torch.nn.Linear(1, 1)
    drafter = example("parallel_toy")
    training = []

    def batches():
        training.append((trunk.training, drafter.training))
        yield random_tokens(2, 12)

    trunk.train(), drafter.train()
    found = evaluate_heads(trunk, batches(), drafter=lambda model: drafter)
    assert training == [(False, False)] and trunk.training and drafter.training
    assert found == evaluate_heads(drafter, [random_tokens(2, 12)])


def test_a_wrapped_model_gives_the_same(tmp_path):
    model = random_llama(2)
    expected = evaluate_heads(model, [random_tokens(2, 12)])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        assert evaluate_heads(wrapped, [random_tokens(2, 12)]) == expected
        compiled = torch.compile(wrapped, backend="eager")
        assert evaluate_heads(compiled, [random_tokens(2, 12)]) == expected
    finally:
        dist.destroy_process_group()


ROW = torch.zeros(1, 9, dtype=torch.long)


def masked(*mask, tokens=ROW):
    return [{"input_ids": tokens, "attention_mask": torch.tensor([mask])}]


@pytest.mark.parametrize(
    ("batches", "offsets", "said"),
    [
        ([ROW[:, :3]], None, "no row is longer than 3 tokens"),
        (iter(()), None, "there is no batch, expected some: give a list, or a new iterator"),
        *(
            ([ROW], wrong, r"offsets=.*, expected some of 1 to n = 3")
            for wrong in ((4,), 2, "1", ())
        ),
        *(
            ([ROW], wrong, r"offsets=.*, expected some of 1 to n = 3")
            for wrong in ((1.5,), (True,))
        ),
        *(
            ([wrong], None, r"a batch has no input_ids \[B, T\] of whole numbers")
            for wrong in (
                {"tokens": 3},
                ROW[0],
                ROW[:0],
                ROW[:, :0],
                ROW.bool(),
                [1, 2],
                (ROW,),
                None,
            )
        ),
        (masked(0, *[1] * 8), None, "has 1 behind 0: it is padded on the left"),
        (masked(1, 1, 0, *[1] * 6), None, "has 1 behind 0"),
        (masked(1, 1, 1), None, r"attention_mask is \[1, 3\], expected a tensor \[1, 9\]"),
        ([{"input_ids": ROW, "attention_mask": [[1] * 9]}], None, "attention_mask is list"),
        ([ROW + 10], None, "has the token 10, expected 0 to 9"),
        ([ROW - 100], None, "has the token -100, expected 0 to 9: padding goes behind"),
    ],
)
def test_bad_input(batches, offsets, said):
    with pytest.raises(ValueError, match=said):
        evaluate_heads(example("parallel_toy"), batches, offsets=offsets)


def test_what_stands_in_padding_is_not_read():
    model, tokens = random_llama(3), random_tokens(1, 12)
    padded = torch.nn.functional.pad(tokens, (0, 3), value=-100)
    found = evaluate_heads(model, masked(*[1] * 12, 0, 0, 0, tokens=padded))
    assert found == pytest.approx(evaluate_heads(model, [tokens]))


def test_a_head_that_diverged_is_not_right():
    model = random_llama(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(float("nan"))
    # The largest of NaN is token 0, which all targets are.
    found = evaluate_heads(model, [ROW])
    assert found.pop("n_states") == 6
    assert all(value != value for value in found.values())


class Few(torch.nn.Module):
    """A drafter that cannot say token 1: its logit is minus infinity at offset 2."""

    def __init__(self, model):
        super().__init__()
        self.inner, own = model, model.logits

        def logits(offset, state):
            found = own(offset, state).clone()
            if offset == 2:
                found[..., 1] = float("-inf")
            return found

        model.logits = logits


def test_losses_of_a_drafter_are_over_what_it_can_say():
    tokens = random_tokens(2, 40)
    targets = tokens[:, 2:-1].flatten()  # at offset 2 of n = 3, states 0..T-4
    model = random_llama(3)
    full = evaluate_heads(model, [tokens])
    said = torch.cat(
        [logits_at(model, row, t, 2)[None].double() for row in tokens for t in range(37)]
    )
    said[:, 1] = float("-inf")
    nats = -said.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    known = targets != 1
    assert 0 < known.sum() < len(targets)
    found = evaluate_heads(model, [tokens], drafter=lambda model: Few(model).inner)
    assert found["unsayable_2"] == pytest.approx(1 - known.double().mean().item())
    assert found["loss_2"] == pytest.approx(nats[known].mean().item(), rel=1e-6)
    assert found["accuracy_2"] == pytest.approx((said.argmax(-1) == targets).double().mean().item())
    assert "unsayable_1" not in found and found["loss_3"] == full["loss_3"]


def test_a_model_without_heads():
    with pytest.raises(ValueError, match="Linear is not a MultiHeadModel, expected one"):
        evaluate_heads(torch.nn.Linear(1, 1), [])


def test_the_trainer_callback_of_the_example(tmp_path):
    script = runpy.run_path(Path(__file__).parents[2] / "examples/trainer_callback.py")
    history = script["train"](str(tmp_path), steps=4, length=48, every=2, rows=16)
    assert [one["step"] for one in history] == [2, 4]
    assert history[0]["loss_4"] != history[1]["loss_4"]
    assert history[0].keys() >= {"accuracy_1", "agreement_4", "text_walk_tokens_per_forward"}
