"""Products in two halves: against float64, and which ones."""

import pytest
import torch

from mtp_harness.models.gpu.split_product import halves, splits

PLACES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_tokens", [1, 5, 168, 256])
def test_halves_add_up_to_the_product(device, dtype, n_tokens):
    torch.manual_seed(0)
    wide = torch.randn(n_tokens, 640, device=device, dtype=dtype)
    states = wide[:, 64:576]  # not contiguous
    weight = torch.randn(320, 512, device=device, dtype=dtype) * 512**-0.5
    exact = states.double(), weight.double()
    first, second = (
        (states[:, half] @ weight[:, half].t()).double()
        for states, weight in [exact]
        for half in (slice(0, 256), slice(256, 512))
    )
    found, rounding = halves(states, weight), torch.finfo(dtype).eps
    for half, expected in zip(found, (first, second), strict=True):
        torch.testing.assert_close(half.double(), expected, rtol=rounding, atol=rounding)


def test_which_products_are_split():
    states, weight = torch.empty(256, 32).half(), torch.empty(4096, 32).half()
    assert splits(states, weight, None) and splits(states.bfloat16(), weight.bfloat16(), None)
    assert not splits(states, weight, torch.empty(4096).half())
    assert not splits(states.float(), weight.float(), None)
    assert not splits(torch.empty(257, 32).half(), weight, None)
    assert not splits(states, torch.empty(4097, 32).half(), None)
    assert not splits(states[:, :24], weight[:, :24], None)  # halves would not be aligned
