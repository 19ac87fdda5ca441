"""The roofline of the GPU benchmarks, against sums written out by hand."""

import pytest
import torch

from .benchmarks.bench_engines_gpu import our_model
from .benchmarks.roofline import Work, floor_ms, work_of_step

D, FFN, V, H, KV, WIDTH = 128, 256, 512, 4, 2, 32
SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": FFN,
    "num_hidden_layers": 5,
    "num_attention_heads": H,
    "num_key_value_heads": KV,
}
LAYER = D * (H + 2 * KV) * WIDTH + D * D + 3 * D * FFN  # weights
B, K, LENGTH = 3, 4, 40


def totals(work, kind):
    """Return bytes and operations of one kind."""
    those = [one for one in work if one.kind == kind]
    return sum(one.bytes for one in those), sum(one.operations for one in those)


def attention(queries):
    """Return bytes and operations of one layer's attention with so many queries a row."""
    return B * LENGTH * 2 * KV * WIDTH * 2, 4 * B * queries * H * WIDTH * LENGTH


def test_parallel_heads():
    model = our_model("llama", SIZES, "meta", torch.bfloat16)
    work = work_of_step(model, K, B, LENGTH)
    trunk = 5 - (K - 1)  # head 1's own layer is the last of the trunk's; n = 4
    moved, operations = totals(work, "attention")
    expected = [trunk * one for one in attention(K)]
    expected = [a + (K - 1) * b for a, b in zip(expected, attention(1), strict=True)]
    assert [moved, operations] == expected
    # Heads 2..4 read keys and values of all tokens, the rest of the layer at one token of a row.
    keys_and_values = D * 2 * KV * WIDTH
    products = 2 * B * K * (trunk * LAYER + V * D)
    products += 2 * B * (K - 1) * (K * keys_and_values + LAYER - keys_and_values + V * D)
    assert totals(work, "product")[1] == products


def test_a_reused_module():
    model = our_model("mimo", SIZES, "meta", torch.bfloat16)
    work = work_of_step(model, K, B, LENGTH)
    passes = [K] + [1] * (K - 2)  # the first over the window, the others at one token
    expected = [sum(each) for each in zip(*map(attention, [K] * 5 + passes), strict=True)]
    assert list(totals(work, "attention")) == expected
    module = LAYER + 2 * D * D  # its own projection of state and embedding
    products = 2 * B * (K * (5 * LAYER + V * D) + sum(passes) * module + (K - 1) * V * D)
    assert totals(work, "product")[1] == products


def test_states_are_read_and_written_once():
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": WIDTH}
    linear |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    sizes = SIZES | linear | {"num_hidden_layers": 4}
    model = our_model("qwen", sizes, "meta", torch.bfloat16)
    moved, operations = totals(work_of_step(model, 1, B, LENGTH), "state")
    convolution = (2 * 2 * 16 + 4 * 16) * 3  # channels, and the tokens before the last
    assert moved == 2 * 4 * B * 3 * (4 * 16 * 16 + convolution) and operations == 0


def test_weights_and_results_are_moved_once():
    model = our_model("mimo", SIZES, "meta", torch.bfloat16)
    (one,) = [one for one in work_of_step(model, 1, B, LENGTH) if one.operations == 2 * B * V * D]
    assert one.bytes == 2 * (V * D + B * D + B * V)


def test_a_kernel_takes_the_longer_of_its_two_times():
    work = [Work("product", 100, 1000), Work("product", 300, 10)]
    assert floor_ms(work, bandwidth=100.0, rate=200.0) == pytest.approx((5 + 3) * 1e3)
