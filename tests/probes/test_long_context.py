"""mtp_long_context: prompts of several lengths with one end, steps by what stands before them."""

from types import SimpleNamespace

import pytest
import torch
from lm_eval.tasks import TaskManager

from mtp_harness import _startup, tasks_dir
from mtp_harness.data.corpus import code_corpus
from mtp_harness.data.long_context import BYTES, load
from mtp_harness.decode.records import DecodeRecord
from mtp_harness.errors import UserError
from mtp_harness.probes.encoding import last_tokens
from mtp_harness.probes.long_context import in_bins


def test_steps_by_hand():
    # 505 tokens and the prefill's own: steps stand behind 506, 509, 512, 513 and 515.
    record = DecodeRecord(
        505, 0, 3, "exact", 11, (2, 2, 0, 1, 2), "length", False, 1, 0.1, 0.2, (2, 2, 1, 1, 2)
    )
    found = in_bins(record)
    assert {place: one.n_verified for place, one in found.items()} == {0: (2, 2), 1: (0, 1, 2)}
    assert {place: one.n_drafted for place, one in found.items()} == {0: (2, 2), 1: (1, 1, 2)}


def test_lengths_share_the_end_of_a_document():
    rows = load(quick=True, prompt_tokens=[64, 32])["test"]
    assert list(rows["prompt_tokens"]) == [32, 64] * 4 and len(set(rows["name"])) == 8
    texts = {one.name: one.text for one in code_corpus().documents}
    for one, two in zip(rows["text"][::2], rows["text"][1::2], strict=True):
        assert one == two and len(one.encode()) <= 64 * BYTES
    assert all(texts[row["name"].split(",")[0]].startswith(row["text"]) for row in rows)
    assert len(load()["test"]) == 16 * 7


def test_lengths_that_no_document_has_end_in_a_sentence():
    with pytest.raises(ValueError, match="prompt_tokens=9999999 takes a module of 49,999,995 byte"):
        load(prompt_tokens=9_999_999)
    with pytest.raises(ValueError, match=r"prompt_tokens=\[0\], expected whole numbers from 1"):
        load(prompt_tokens=[0])


@pytest.mark.parametrize(("bos", "expected"), [(None, [5, 6, 7]), (1, [1, 6, 7])])
def test_last_tokens_keep_a_bos(bos, expected):
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    tokenizer = SimpleNamespace(bos_token_id=bos, model_max_length=4)
    lm = SimpleNamespace(tokenizer=tokenizer, tok_batch_encode=lambda texts: (tokens, None))
    assert last_tokens(lm, "a text", 3) == expected and tokenizer.model_max_length == 4
    with pytest.raises(ValueError, match="the document has 7 tokens, expected 8 or more"):
        last_tokens(lm, "a text", 8)


def run(**metadata):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate

    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model="mtp",
        model_args={"device": "cpu", "batch_size": 4},
        tasks=["mtp_long_context"],
        task_manager=manager,
        limit=4,
        bootstrap_iters=0,
    )


def test_a_real_run_is_a_plain_loop_over_its_samples():
    found = run(prompt_tokens=[500, 1100], new_tokens=30)
    steps, verified = {}, {}
    for sample in found["samples"]["mtp_long_context"]:
        for one in sample["n_documents"]["by_k"]:
            record = one["record"]
            k, stand = record["draft_heads"], record["n_prompt_tokens"] + 1
            assert record["n_prompt_tokens"] == sample["doc"]["prompt_tokens"]
            for n in record["n_verified"]:
                at = k, 512 * (stand // 512)
                steps[at] = steps.get(at, 0) + 1
                for offset in range(2, n + 2):
                    verified[(*at, offset)] = verified.get((*at, offset), 0) + 1
                stand += n + 1
    assert {at for _, at in steps} == {0, 512, 1024}
    table = found["config"]["mtp"]["tables"]["mtp_long_context"]["by_context"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert {(row["k"], row["position_from"]) for row in rows} == {at for at in steps if at[0] > 1}
    for row in rows:
        at = row["k"], row["position_from"]
        assert row["position_to"] == at[1] + 511 and row["category"] == "code"
        of_bin = [n for place, n in verified.items() if place[:2] == at]
        if row["metric"] == "accept_length":
            assert row["value"] == pytest.approx(1 + sum(of_bin) / steps[at])
            assert row["count"] == steps[at] and row["offset"] is None
        elif row["metric"] == "accept_rate_prefix":
            accepted = verified.get((*at, row["offset"]), 0)
            assert row["value"] == pytest.approx(accepted / steps[at])


def test_prompts_longer_than_the_context_end_in_a_sentence():
    with pytest.raises(UserError, match="4000 tokens before an answer of 128 do not fit into a"):
        run(quick=True, prompt_tokens=[32, 4000])
