"""A model on several devices. No GPU is needed: fake tensors carry a device and shapes, and any
operation on tensors of two devices raises, as it would on the GPUs."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots
from mtp_harness.models.checkpoints.meta import META
from mtp_harness.models.checkpoints.sequential_folder import SEQUENTIAL
from mtp_harness.models.decoding_weights import Joined
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.spread import gpus, require_spreadable, shares, spread

FIRST, SECOND = torch.device("cpu"), torch.device("meta")


def config(**changes):
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "n_future_tokens": 4,
    }
    return MTPLlamaConfig(**(sizes | changes))


def move(module, device):
    """`Module.to`, which torch does not do for fake parameters."""
    for part in module.modules():
        for kept in (part._parameters, part._buffers):
            kept.update(
                {name: one.detach().to(device) for name, one in kept.items() if one is not None}
            )
    return module


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "to", move)
    # A fake tensor has no address to compare.
    monkeypatch.setattr(Joined, "serve", lambda *_: True)
    with FakeTensorMode():
        yield


def on_two(**changes):
    return spread(MTPLlamaForCausalLM(config(**changes)).eval(), [FIRST, SECOND])


def devices(module):
    return {tensor.device for tensor in [*module.parameters(), *module.buffers()]}


@pytest.mark.parametrize(
    ("sizes", "outside", "n", "expected"),
    [
        # Laid end to end, cut in the middle: 4 | 4, 5 | 3 and 1 | 3 of the blocks.
        ([1] * 8, 0, 2, [0, 0, 0, 0, 1, 1, 1, 1]),
        ([1] * 8, 2, 2, [0, 0, 0, 1, 1, 1, 1, 1]),
        ([3, 1, 1, 1], 0, 2, [0, 1, 1, 1]),
        ([1] * 6, 0, 3, [0, 0, 1, 1, 2, 2]),
        ([1, 1], 0, 4, [1, 3]),
        ([1, 1], 100, 2, [1, 1]),
    ],
)
def test_shares_are_cut_at_the_middles_of_blocks(sizes, outside, n, expected):
    assert shares(sizes, outside, n) == expected


def test_every_part_has_one_place(fake):
    model = on_two()
    inner = model.model
    for part in (inner.embed_tokens, inner.norm, inner.rotary_emb, model.lm_head):
        assert devices(part) == {FIRST}
    blocks = [*inner.layers, *model.extra_heads]
    places = [devices(block) for block in blocks]
    assert all(len(place) == 1 for place in places)
    flat = [place.pop() for place in places]
    assert flat == sorted(flat, key=str) and set(flat) == {FIRST, SECOND}
    assert model.device == FIRST


@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, 0, 0.9)], ids=["greedy", "sampled"])
def test_decoding_mixes_no_devices(fake, replicated, sampling):
    model = on_two(replicated_unembeddings=replicated)
    slots = Slots(model, 4, Rule(), sampling, 3, 40)
    prompts = [[1, 2, 3], [4, 5]]
    with torch.inference_mode():
        filled = slots.fill([0, 1], prompts)
        slots.share(0, [2], 3)
        first = slots.start(
            [0, 1, 2], [*prompts, prompts[0]], [*filled, filled[0]], [9] * 3, [7] * 3
        )
        out = slots.step(4, 12)
    assert first.device == out.device == FIRST and out.shape == (3, 9)
    stored = {tensor.device for tensor in [*slots.cache.keys, *slots.cache.values]}
    assert stored == {FIRST, SECOND}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_log_likelihoods_mix_no_devices(fake, attention):
    model = on_two()
    model.set_attn_implementation(attention)
    tokens = torch.zeros(2, 5, dtype=torch.int64, device=FIRST)
    assert model.next_token_logits(tokens).device == FIRST


def test_fake_devices_would_show_a_mistake(fake):
    model = on_two()
    model.model.layers[0].to(SECOND)  # its neighbour's input is still asked for on the first
    model.model.norm.to(SECOND)
    with pytest.raises(RuntimeError, match="two (different )?devices"):
        model.next_token_logits(torch.zeros(1, 3, dtype=torch.int64, device=FIRST))


def test_spreading_needs_gpus_and_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpus() == [torch.device("cuda", 0), torch.device("cuda", 1)]
    require_spreadable(META, None, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes.*leave it out"):
        require_spreadable(META, None, None)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"finds 1 here: leave it out"):
        require_spreadable(META, None, None)
    with pytest.raises(ValueError, match="parallelize=True does not work with .* sequential mod"):
        require_spreadable(SEQUENTIAL, None, None)
    with pytest.raises(ValueError, match=r"my:load gives a Linear"):
        require_spreadable(None, torch.nn.Linear(1, 1), "my:load")
