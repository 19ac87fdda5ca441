"""Products in two halves: against float64, and which ones."""

import pytest
import torch

from mtp_harness.models.gpu.split_product import halves, splits

PLACES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
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
    found, rounding = halves(states, weight), max(torch.finfo(dtype).eps, 1e-5)
    for half, expected in zip(found, (first, second), strict=True):
        torch.testing.assert_close(half.double(), expected, rtol=rounding, atol=rounding)


def test_which_products_are_split():
    def found(n_tokens, n_inputs, n_outputs, dtype=torch.bfloat16, bias=None):
        with torch.device("meta"):
            states, weight = torch.empty(n_tokens, n_inputs), torch.empty(n_outputs, n_inputs)
        return splits(states.to(dtype), weight.to(dtype), bias)

    assert found(256, 32, 4096) and not found(257, 32, 4096)
    assert not found(1, 32, 4096, bias=torch.empty(4096))
    assert not found(1, 32, 4096, torch.float32) and not found(1, 32, 4096, torch.float16)
    assert not found(1, 8194, 4097) and not found(1, 4112, 4097)
    assert found(128, 8208, 4097) and not found(129, 8208, 4097)
    assert not found(1, 24, 4096)  # halves would not be aligned
