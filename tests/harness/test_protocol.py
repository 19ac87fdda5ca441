"""What is asked of a model, and that ours has all of it."""

from types import SimpleNamespace

import pytest

from mtp_harness.harness.protocol import HeadsModel, Tokenizing
from mtp_harness.harness.shots import tokens_of
from mtp_harness.lm import MTPLM
from mtp_harness.probes.heads import HeadsTask
from mtp_harness.probes.induction import InductionTask
from mtp_harness.probes.speculative import SpeculativeTask
from mtp_harness.probes.speed_task import SpeedTask


def test_our_model_has_all_that_is_asked_of_one():
    assert isinstance(MTPLM(device="cpu"), HeadsModel)


@pytest.mark.parametrize("task", [HeadsTask, InductionTask, SpeculativeTask, SpeedTask])
def test_every_probes_requests_have_a_method(task):
    assert callable(getattr(HeadsModel, task.request_type))
    assert callable(getattr(MTPLM, task.request_type))


def test_a_model_without_a_tokenizer_counts_no_tokens():
    silent, letters = SimpleNamespace(), SimpleNamespace(tok_encode=list)
    assert isinstance(letters, Tokenizing) and not isinstance(silent, Tokenizing)
    assert tokens_of(silent, "abc") is None and tokens_of(letters, "abc") == 3
