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
    found = evaluate_heads(trunk, [random_tokens(2, 12)], drafter=lambda model: drafter)
    assert found == evaluate_heads(drafter, [random_tokens(2, 12)])


def test_a_wrapped_model_gives_the_same(tmp_path):
    model = random_llama(2)
    expected = evaluate_heads(model, [random_tokens(2, 12)])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert evaluate_heads(DistributedDataParallel(model), [random_tokens(2, 12)]) == expected
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("batches", "offsets", "said"),
    [
        ([torch.zeros(1, 3, dtype=torch.long)], None, "no row is longer than 3 tokens"),
        ([torch.zeros(1, 9, dtype=torch.long)], (4,), r"offsets=\(4,\), expected some of 1"),
        ([{"tokens": 3}], None, "a batch has no input_ids"),
        (
            [{"input_ids": torch.zeros(1, 4, dtype=torch.long),
              "attention_mask": torch.tensor([[0, 1, 1, 1]])}],
            None, "padded on the left",
        ),
    ],
)  # fmt: skip
def test_bad_input(batches, offsets, said):
    with pytest.raises(ValueError, match=said):
        evaluate_heads(example("parallel_toy"), batches, offsets=offsets)


def test_a_model_without_heads():
    with pytest.raises(ValueError, match="Linear is no MultiHeadModel, expected one"):
        evaluate_heads(torch.nn.Linear(1, 1), [])


def test_the_trainer_callback_of_the_example(tmp_path):
    script = runpy.run_path(Path(__file__).parents[2] / "examples/trainer_callback.py")
    history = script["train"](str(tmp_path), steps=4, length=48, every=2, rows=16)
    assert [one["step"] for one in history] == [2, 4]
    assert history[0]["loss_4"] != history[1]["loss_4"]
    assert history[0].keys() >= {"accuracy_1", "agreement_4", "text_walk_tokens_per_forward"}
