"""The n-token loss: its values, its gradients and its memory, next to the plain sum of losses."""

import math
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM

from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.training.loss import backward_head_by_head, chained, losses_of

from ..scripts import EXAMPLES, script


def model(n, replicated=False, vocabulary=61, width=16, **special_tokens):
    torch.manual_seed(n)
    config = MTPLlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=n + 2,
        num_attention_heads=2,
        num_key_value_heads=1,
        n_future_tokens=n,
        replicated_unembeddings=replicated,
        **special_tokens,
    )
    return MTPLlamaForCausalLM(config).double()


def tokens_for(n, vocabulary=61, rows=3, length=11):
    generator = torch.Generator().manual_seed(7)
    return torch.randint(vocabulary, (rows, length + n), generator=generator)


def all_losses(network, tokens):
    """The definition: -log of the softmax at the token i after each input, averaged per head."""
    n = network.n_future_tokens
    length = tokens.shape[1] - n
    trunk = network.trunk(tokens[:, :length])
    losses = []
    for offset in range(1, n + 1):
        logits = network.logits(offset, network.head(offset, trunk))
        total = 0
        for row in range(tokens.shape[0]):
            for place in range(length):
                scores = logits[row, place]
                total = total + scores.logsumexp(0) - scores[tokens[row, place + offset]]
        losses.append(total / (tokens.shape[0] * length))
    return torch.stack(losses)


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_gradients_and_losses_are_those_of_the_sum(in_float64, n, replicated):
    # The loss itself is taken in float32, which would hide the last digits of the gradients.
    network, tokens = model(n, replicated), tokens_for(n)
    losses = all_losses(network, tokens)
    losses.sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    found = backward_head_by_head(network, tokens)
    assert found.shape == (n,) and not found.requires_grad
    assert torch.allclose(found, losses.detach(), rtol=0, atol=1e-12)
    for name, parameter in network.named_parameters():
        assert expected[name].abs().max() > 1e-6, f"{name} has no gradient to compare"
        difference = (parameter.grad - expected[name]).abs().max()
        assert difference < 1e-12, f"{name}: {difference}"


def test_losses_without_training_are_the_same(in_float64):
    network, tokens = model(3), tokens_for(3)
    found = losses_of(network, tokens)
    assert torch.allclose(found, all_losses(network, tokens).detach(), rtol=0, atol=1e-12)
    assert all(p.grad is None for p in network.parameters()) and not found.requires_grad


@pytest.mark.parametrize(
    ("special_tokens", "trained"),
    [
        ({"bos_token_id": 0, "eos_token_id": 0}, True),
        ({"bos_token_id": 0, "eos_token_id": 2}, True),
        ({"bos_token_id": 1, "eos_token_id": 0}, True),
        ({"bos_token_id": 1, "eos_token_id": [2, 0]}, True),
        ({"bos_token_id": 1, "eos_token_id": 2}, False),
    ],
)
def test_padding_that_is_bos_or_eos_too_is_embedded_and_trained(tmp_path, special_tokens, trained):
    made = model(2, pad_token_id=0, **special_tokens)
    made.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    tokens = tokens_for(2)
    tokens[:, 0] = 0
    for network in (made, read):
        row = network.model.embed_tokens.weight[0]
        assert bool(row.abs().max() > 0) is trained
        backward_head_by_head(network, tokens)
        gradient = network.model.embed_tokens.weight.grad[0]
        assert bool(gradient.abs().max() > 1e-9) is trained


def test_losses_are_taken_in_float32_whatever_the_model_is_in():
    network, tokens = model(2), tokens_for(2)
    expected = all_losses(network, tokens).detach()
    found = backward_head_by_head(network.bfloat16(), tokens)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=0.02)


def test_gradients_accumulate():
    network, tokens = model(2), tokens_for(2)
    backward_head_by_head(network, tokens)
    once = {name: p.grad.clone() for name, p in network.named_parameters()}
    backward_head_by_head(network, tokens)
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, 2 * once[name])


def peak_saved_bytes(run):
    """Return the most bytes that autograd kept for the backward pass at one time."""
    live, peak = 0, 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor

    def forget(size):
        nonlocal live
        live -= size

    def pack(tensor):
        nonlocal live, peak
        kept, size = Kept(tensor), tensor.nelement() * tensor.element_size()
        live += size
        peak = max(peak, live)
        weakref.finalize(kept, forget, size)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        run()
    assert live == 0
    return peak


def test_memory_does_not_grow_with_heads():
    """V is large here, as in the paper's argument: the logits are what memory goes to."""
    head_by_head, together = {}, {}
    for n in (2, 4, 8):
        network = model(n, vocabulary=4096, width=8)
        tokens = tokens_for(n, 4096, rows=2, length=64)

        def sum_of_losses(network=network, tokens=tokens, n=n):
            trunk = network.trunk(tokens[:, :-n])
            losses = []
            for offset in range(1, n + 1):
                logits = network.logits(offset, network.head(offset, trunk)).flatten(0, 1)
                targets = tokens[:, offset : offset + 64].flatten()
                losses.append(torch.nn.functional.cross_entropy(logits.float(), targets))
            sum(losses).backward()

        together[n] = peak_saved_bytes(sum_of_losses)
        network.zero_grad()
        head_by_head[n] = peak_saved_bytes(
            lambda network=network, tokens=tokens: backward_head_by_head(network, tokens)
        )
    assert math.isclose(head_by_head[8], head_by_head[2], rel_tol=0.1)
    assert together[8] > 3 * together[2]
    assert head_by_head[8] < together[8] / 4
    assert head_by_head[2] < together[2]


def sequential_toy():
    return script(EXAMPLES / "sequential_toy.py").load(None)


def test_sequential_heads_are_refused():
    with pytest.raises(ValueError, match=r"^The gradients of sequential heads flow through .*\.$"):
        backward_head_by_head(sequential_toy(), tokens_for(4))


def test_a_chain_is_trained_by_its_weighted_loss(in_float64):
    network, tokens = sequential_toy().double(), tokens_for(4, rows=2, length=5)
    losses = []
    for offset in range(1, 5):
        found = []
        for row in tokens:
            for end in range(1, 6):  # the state of the last position of a text that ends there
                state = network.trunk(row[None, :end])
                for head in range(2, offset + 1):
                    state = network.head(head, state, row[None, head - 1 : head - 1 + end])
                scores = network.logits(offset, state)[0, -1]
                found.append(scores.logsumexp(0) - scores[row[end - 1 + offset]])
        losses.append(torch.stack(found).mean())
    one, two, three, four = losses
    (one + 0.2 * (two / 1.75 + three * 0.5 / 1.75 + four * 0.25 / 1.75)).backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    found = chained(3, decay=0.5, share=0.2)(network, tokens)
    assert torch.allclose(found, torch.stack(losses).detach(), rtol=0, atol=1e-12)
    for name, parameter in network.named_parameters():
        assert expected[name].abs().max() > 1e-6, f"{name} has no gradient to compare"
        difference = (parameter.grad - expected[name]).abs().max()
        assert difference < 1e-8, f"{name}: {difference}"  # norms are taken in float32
