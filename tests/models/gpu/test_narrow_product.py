"""Products with narrow weights: against float64, and only where cuBLAS chooses badly."""

import pytest
import torch

from mtp_harness.models.gpu.narrow_product import is_narrow, product

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 8, 16, 17])
@pytest.mark.parametrize("with_bias", [False, True])
def test_against_float64(dtype, rows, with_bias):
    torch.manual_seed(0)
    states = torch.randn(rows, 192, device="cuda", dtype=dtype)
    weight = torch.randn(320, 192, device="cuda", dtype=dtype) * 192**-0.5
    bias = torch.randn(320, device="cuda", dtype=dtype) if with_bias else None
    expected = states.double() @ weight.double().t() + (0 if bias is None else bias.double())
    rounding = 1e-5 if dtype is torch.float32 else 2e-2
    out = product(states, weight, bias)
    torch.testing.assert_close(out.double(), expected, rtol=rounding, atol=rounding)


@needs_gpu
@pytest.mark.parametrize(
    ("rows", "shape", "dtype", "narrow"),
    [
        (8, (320, 192), torch.float32, True),
        (1, (320, 192), torch.float32, False),
        (17, (320, 192), torch.float32, False),
        (8, (1024, 1024), torch.float32, False),
        (8, (320, 192), torch.bfloat16, False),
    ],
)
def test_zeros_are_added_where_cublas_chooses_badly(rows, shape, dtype, narrow):
    states = torch.zeros(rows, shape[1], device="cuda", dtype=dtype)
    assert is_narrow(states, torch.zeros(shape, device="cuda", dtype=dtype)) == narrow


def test_nothing_is_added_on_a_cpu():
    assert not is_narrow(torch.zeros(8, 192), torch.zeros(320, 192))
