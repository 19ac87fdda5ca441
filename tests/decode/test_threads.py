"""Decoding leaves the process's number of threads as it was."""

import pytest
import torch

from mtp_harness.decode import engine as engine_module
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.threads import threads_for

from .models_for_tests import random_llama


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (2, 2), (3, 3), (16, 3)])
def test_a_small_model_has_at_most_a_thread_per_row(rows, threads):
    with threads_for(random_llama(2), rows):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_the_number_comes_back_after_an_error():
    with pytest.raises(KeyError), threads_for(random_llama(2), 1):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_a_large_model_has_them_all(monkeypatch):
    monkeypatch.setattr("mtp_harness.decode.threads.SMALL", 10)
    with threads_for(random_llama(2), 1):
        assert torch.get_num_threads() == 3


def test_the_engine_decodes_so(monkeypatch):
    seen = []

    class Watched(engine_module.Scheduler):
        def _step(self):
            seen.append(torch.get_num_threads())
            super()._step()

    monkeypatch.setattr(engine_module, "Scheduler", Watched)
    engine = Engine(random_llama(2), 2, [], str, slots=2)
    engine.generate([Request([1, 2], 4), Request([3], 4), Request([4], 4)])
    assert set(seen) == {2}
    assert torch.get_num_threads() == 3
