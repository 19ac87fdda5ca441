import os
from pathlib import Path

# Triton reads it when torch imports it: without a GPU its kernels are interpreted.
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny models gain nothing from threads, and lose much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data beside the checkout; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "mbpp.jsonl.gz").is_file():
        pytest.skip(f"needs mbpp.jsonl.gz in {folder}")
    return folder


@pytest.fixture
def in_float64():
    """Models in float64 compute in float64 all the way."""
    from .models.family_checkpoints import in_float64  # here, because it imports all families

    with in_float64():
        yield
