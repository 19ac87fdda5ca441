"""Linear attention for rows that drop tokens again: by its formula, and by transformers' layer."""

import inspect
import random

import pytest
import torch

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.gated_delta import read_window, serve_slots, state_shapes
from mtp_harness.models.interface import LayerShape

from .family_checkpoints import QWEN, in_float64, trunk


def token_by_token(query, key, value, g, beta, matrix):
    """Yield S and the output of one head after each token, from the module's first formula."""
    for q, k, v, fade, strength in zip(query, key, value, g, beta, strict=True):
        q, k = (x / (x.square().sum() + 1e-6).sqrt() for x in (q, k))
        matrix = fade.exp() * matrix
        matrix = matrix + torch.outer(k, strength * (v - matrix.T @ k))
        yield matrix, matrix.T @ q / len(q) ** 0.5


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_a_window_is_the_formula_for_every_number_of_kept_tokens(length):
    torch.manual_seed(0)
    rows, heads, wide, high = 2, 3, 4, 6
    vectors = [torch.randn(rows, length, heads, n, dtype=torch.float64) for n in (wide, wide, high)]
    g = -4 * torch.rand(rows, length, heads, dtype=torch.float64)
    beta = torch.rand(rows, length, heads, dtype=torch.float64)
    before = torch.randn(rows, heads, wide, high, dtype=torch.float64)
    found, window = read_window(*vectors, g, beta, before)
    kept = [window.kept(before, torch.tensor([n, length - n])) for n in range(length + 1)]
    assert torch.equal(kept[0][0], before[0]) and torch.equal(kept[-1][1], before[1])
    for row in range(rows):
        for head in range(heads):
            of_head = [part[row, :, head] for part in (*vectors, g, beta)]
            for t, (matrix, out) in enumerate(token_by_token(*of_head, before[row, head])):
                assert (found[row, t, head] - out).abs().max() < 1e-13
                of_row = kept[t + 1] if row == 0 else kept[length - t - 1]
                assert (of_row[row, head] - matrix).abs().max() < 1e-13


@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_ragged_prompts_and_windows_are_transformers_layer_over_the_whole_text(family):
    """Rows stand apart, keep other numbers of their windows, or rest; rejected tokens are noise."""
    with in_float64():
        main, length = trunk(family), 40
        net = main.get_decoder().layers[1].linear_attn
        text = torch.randn(3, length, 64, dtype=torch.float64)
        expected = net(text)
        serve_slots(main.get_decoder())
        shapes = [LayerShape(0, 0), LayerShape(0, 0, states=state_shapes(main.config))]
        cache = SlotCache(shapes, 3, length, torch.float64, torch.device("cpu"))
        prompts, rng = torch.tensor([1, 9, 3]), random.Random(0)
        columns = torch.arange(9)
        positions = torch.where(columns < prompts[:, None], columns, cache.trash)
        cache.fill(torch.tensor([2, 0, 1]), positions)  # text row i is in slot (2, 0, 1)[i]
        given = torch.where((positions < length)[..., None], text[:, :9], torch.randn(3, 9, 64))
        found = net(given, cache_params=cache)
        for row, n in enumerate(prompts.tolist()):
            assert (found[row, :n] - expected[row, :n]).abs().max() < 1e-11
        order = [1, 2, 0]  # by slot: its row of the text
        stand, text, expected = prompts[order], text[order], expected[order]
        while stand.min() < 30:
            width = rng.randint(1, 5)
            count = torch.tensor([rng.randint(0, width) for _ in range(3)])
            resting = torch.tensor([rng.random() < 0.2 or n >= 30 for n in stand.tolist()])
            places = stand[:, None] + torch.arange(width)
            kept = (torch.arange(width) < count[:, None]) & ~resting[:, None]
            noise = torch.randn(3, width, 64, dtype=torch.float64)
            true = text.gather(1, places[..., None].expand(-1, -1, 64))
            cache.at(torch.where(resting[:, None], cache.trash, places), length)
            found = net(torch.where(kept[..., None], true, noise), cache_params=cache)
            cache.keep(count)
            wanted = expected.gather(1, places[..., None].expand(-1, -1, 64))
            assert not kept.any() or (found - wanted)[kept].abs().max() < 1e-11
            stand = torch.where(resting, stand, stand + count)


@pytest.mark.parametrize("family", QWEN)
def test_what_is_relied_on_in_transformers(family):
    """The layer's weights, all of them; its call; and the function for prompts of its file."""
    net = trunk(family).get_decoder().layers[0].linear_attn
    inputs = ("qkvz", "ba") if family == "qwen3_next" else ("qkv", "z", "b", "a")
    weights = {"conv1d.weight", "dt_bias", "A_log", "norm.weight", "out_proj.weight"}
    weights |= {f"in_proj_{name}.weight" for name in inputs}
    assert dict(net.named_parameters()).keys() == weights
    assert hasattr(net, "fix_query_key_value_ordering") == (family == "qwen3_next")
    call = inspect.signature(type(net).forward).parameters
    assert {"hidden_states", "attention_mask"} < call.keys()
    assert {"cache_params", "cache"} & call.keys()
    rule = inspect.getmodule(type(net)).torch_chunk_gated_delta_rule
    assert {"g", "beta", "output_final_state", "use_qk_l2norm_in_kernel"} < (
        inspect.signature(rule).parameters.keys()
    )
