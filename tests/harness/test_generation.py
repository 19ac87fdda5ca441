"""How `MTPLM` answers: sampling, journal, `draft_heads=auto`, acceptance, progress."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from safetensors.torch import load_file, save_file
from sqlitedict import SqliteDict

from mtp_harness.decode import fastest
from mtp_harness.decode.engine import Answer, Request
from mtp_harness.decode.records import Generation
from mtp_harness.errors import UserError
from mtp_harness.harness.generation import Decoding
from mtp_harness.harness.progress import Progress
from mtp_harness.lm import MTPLM
from mtp_harness.models import provenance
from mtp_harness.models.load import resolve

CODE = ["def add(a, b):\n    ", "import os\n\n\nclass Folder:\n    ", "for i in range(10):\n"]


def asks(prompts, repeats=1, task="t", **kwargs):
    given = {"do_sample": False, "max_gen_toks": 24, "until": [], **kwargs}
    return [
        instance
        for i, p in enumerate(prompts)
        for instance in [
            Instance(
                "generate_until", {}, (p, copy.deepcopy(given)), 0, metadata=(task, i, repeats)
            )
        ]
        * repeats
    ]


def sampled(**kwargs):
    return {"do_sample": True, "temperature": 0.9, **kwargs}


def model(**arguments):
    return MTPLM(device="cpu", **{"batch_size": 4, "dtype": "float64", **arguments})


# Sampling


def test_samples_are_the_same_for_every_k_batch_and_order_and_differ_by_repeat():
    requests = asks(CODE, repeats=3, **sampled())
    first = model(draft_heads=1, batch_size=1).generate_until(requests)
    assert len(set(first)) == len(first)
    for arguments in ({"draft_heads": 4}, {"draft_heads": 2, "batch_size": 9}):
        assert model(**arguments).generate_until(requests) == first
    backwards = asks(CODE, repeats=3, **sampled())[::-1]
    assert sorted(model().generate_until(backwards)) == sorted(first)
    assert "same noise" in first[0].record.draft_rule


def test_samples_depend_on_seed_task_and_document():
    def texts(seed=None, task="t", prompts=CODE[:1]):
        lm = model() if seed is None else model(seed=seed)
        return lm.generate_until(asks(prompts, task=task, **sampled()))

    assert texts(seed=1) == texts(seed=1) != texts(seed=2)
    assert texts(seed=1) != texts(seed=1, task="u")
    one, two = texts(seed=1, prompts=CODE[:1] * 2)
    assert one != two
    torch.manual_seed(7)  # what the harness does with --seed
    by_harness = texts()
    assert by_harness == texts(seed=7)


def test_top_k_of_one_is_greedy():
    greedy = model().generate_until(asks(CODE))
    assert model().generate_until(asks(CODE, **sampled(top_k=1))) == greedy
    assert model().generate_until(asks(CODE, **sampled(top_p=0.0))) == greedy


# Caches


def test_answers_from_a_cache_do_not_claim_to_be_decoded(tmp_path):
    requests = asks(CODE)
    first = CachingLM(model(), str(tmp_path / "cache")).generate_until(requests)
    assert all(isinstance(answer, Generation) for answer in first)
    later = model(batch_size=1, label="later")  # neither changes an answer
    again = CachingLM(later, str(tmp_path / "cache")).generate_until(asks(CODE))
    assert again == first
    assert [type(answer) for answer in again] == [str] * 3
    assert later.get_model_info()["mtp"]["totals"] == {"n_answers": 0}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"pretrained": "mtp-bytes-n1"}, r"pretrained \(mtp-bytes-n4 there, mtp-bytes-n1 now"),
        ({"draft_heads": 2}, r"draft_heads \(4 there, 2 now\)"),
        ({"acceptance": "all"}, r"acceptance \(exact there, all now\)"),
        ({"dtype": "float32"}, r"dtype \(float64 there, float32 now\)"),
        ({"add_bos_token": False}, "add_bos_token"),
        ({"think_end_token": 10}, "think_end_token"),
        ({"max_length": 64}, "max_length"),
    ],
)
def test_a_cache_of_another_model_is_refused(tmp_path, arguments, named):
    cache = str(tmp_path / "cache")
    CachingLM(model(), cache).generate_until(asks(CODE[:1]))
    with pytest.raises(UserError, match="holds the answers of another model") as caught:
        CachingLM(model(**arguments), cache)
    assert "\n" not in str(caught.value) and cache in str(caught.value)
    assert re.search(named, str(caught.value))


def test_a_cache_outlives_neither_its_checkpoint_nor_its_tokenizer(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(resolve("mtp-bytes-n4"), folder)
    CachingLM(model(pretrained=str(folder)), str(tmp_path / "cache"))
    CachingLM(model(pretrained=str(folder)), str(tmp_path / "cache"))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights_sha256"):
        CachingLM(model(pretrained=str(folder)), str(tmp_path / "cache"))

    monkeypatch.setattr(provenance, "LARGEST_HASHED_BYTES", 1)  # as with large checkpoints
    CachingLM(model(pretrained=str(folder)), str(tmp_path / "large"))
    CachingLM(model(pretrained=str(folder)), str(tmp_path / "large"))
    weights["model.norm.weight"] *= 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="files"):
        CachingLM(model(pretrained=str(folder)), str(tmp_path / "large"))


def test_a_cache_that_does_not_say_whose_it_is_is_refused(tmp_path):
    with SqliteDict(str(tmp_path / "cache"), autocommit=True) as cache:
        cache["0" * 64] = "an answer"
    with pytest.raises(UserError, match="of an unknown model.*name another file"):
        CachingLM(model(), str(tmp_path / "cache"))


# The journal


def without_timing(mtp):
    plain = json.loads(json.dumps(mtp))
    for name in ("command", "journal"):
        plain.pop(name)
    plain["totals"].pop("timing")
    return plain


def records(answers):
    return [{**a.record.as_dict(), "prefill_s": 0, "decode_s": 0} for a in answers]


def test_a_journal_answers_what_it_holds_and_no_more(tmp_path):
    """Also those of a model that is still there: it holds the journal while it answers alone."""
    requests = asks(CODE, repeats=2, **sampled())
    whole = model()
    expected = whole.generate_until(requests)
    path = tmp_path / "journal"
    half = model(journal=str(path))
    half.generate_until(requests[:3])
    lm = model(journal=str(path))
    answers = lm.generate_until(requests)
    assert answers == expected and records(answers) == records(expected)
    timing = lm.get_model_info()["mtp"]["totals"]["timing"]
    assert timing["n_answers_from_journal"] == 3
    assert timing["n_tokens"] == sum(a.record.n_kept + 1 for a in answers[3:])
    assert without_timing(lm.get_model_info()["mtp"]) == without_timing(
        whole.get_model_info()["mtp"]
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"draft_heads": 2}, "draft_heads"),
        ({"seed": 5}, "seed"),
        ({"dtype": "float32"}, "dtype"),
        ({"pretrained": "mtp-bytes-n1"}, "pretrained"),
        ({"acceptance": "all"}, "acceptance"),
    ],
)
def test_a_journal_of_other_settings_is_refused(tmp_path, arguments, named):
    path = str(tmp_path / "journal")
    first = model(journal=path, seed=1)
    first.generate_until(asks(CODE[:1]))
    with pytest.raises(UserError, match=named) as caught:  # not a traceback on the command line
        model(**{"journal": path, "seed": 1, **arguments}).generate_until(asks(CODE[:1]))
    assert "\n" not in str(caught.value)


def test_a_journal_that_cannot_be_written_is_one_sentence(tmp_path):
    for arguments in ({}, {"draft_heads": "auto"}):
        with pytest.raises(UserError, match=str(tmp_path)):
            model(journal=str(tmp_path), **arguments).generate_until(asks(CODE[:1]))


def test_memory_for_no_row_is_one_sentence(monkeypatch):
    lm = model(batch_size=1)

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(lm.model, "trunk", full)
    with pytest.raises(UserError, match="lower max_gen_toks or max_length"):
        lm.generate_until(asks(CODE[:1]))


def test_ranks_agree_on_k_although_one_finds_the_others_choice_in_the_journal(tmp_path):
    """Every rank must take part in agreeing, or the others wait for it for ever."""
    path = str(tmp_path / "journal")
    first = model(draft_heads="auto", journal=path)
    first.generate_until(asks(CODE[:1]))
    second, asked = model(draft_heads="auto", journal=path), []
    second.agree = lambda mine: asked.append(mine) or mine
    second.generate_until(asks(CODE[:1]))
    assert asked == [second._generator.auto]


COMMAND = ["-m", "lm_eval", "run", "--model", "mtp", "--tasks", "humaneval_mtp", "--limit", "6"]


def run_command(folder, journal, **options):
    arguments = [sys.executable, *COMMAND, "--output_path", str(folder), "--log_samples"]
    arguments += ["--model_args", f"journal={journal},seed=1", "--batch_size", "2"]
    return subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def outcome(folder):
    [results] = Path(folder).rglob("results_*.json")
    [samples] = Path(folder).rglob("samples_*.jsonl")
    mtp = json.loads(results.read_text())["config"]["mtp"]
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    for line in lines:
        for answer in line["n_answers"]:
            answer["verdict"].pop("wall_s")
            for name in ("prefill_s", "decode_s"):
                answer["decode"].pop(name)
    return without_timing(mtp), lines, mtp["totals"]["timing"]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stood(tmp_path):
    whole = run_command(tmp_path / "whole", tmp_path / "whole.jsonl")
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    journal = tmp_path / "journal.jsonl"
    n_before, n_kills = 1, 0
    while True:
        run = run_command(tmp_path / "resumed", journal, start_new_session=True)
        while run.poll() is None and n_lines(journal) <= n_before:
            time.sleep(0.005)
        if run.poll() is not None or n_kills == 3:
            break
        os.killpg(run.pid, signal.SIGKILL)  # as soon as there is one more answer
        run.wait()
        n_kills, n_before = n_kills + 1, n_lines(journal)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert n_kills >= 2
    expected, got = outcome(tmp_path / "whole"), outcome(tmp_path / "resumed")
    assert got[:2] == expected[:2]
    assert expected[2]["n_answers_from_journal"] == 0
    assert got[2]["n_answers_from_journal"] >= n_kills
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 6  # none computed twice, none missing


def n_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


# draft_heads=auto


class Clock:
    """Time that passes only where an engine says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Timed:
    """An engine that takes a fixed time per answer."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def generate(self, requests):
        self.clock.now += self.seconds
        return [Answer([1] * request.max_new_tokens, None) for request in requests]


@pytest.mark.parametrize("best", [1, 2, 3])
def test_auto_keeps_the_fastest_ntp_included(monkeypatch, best):
    clock = Clock()
    monkeypatch.setattr(fastest, "time", clock)
    requests = [Request([i], 100) for i in range(10)]
    choice = fastest.fastest_draft_heads(
        lambda k: Timed(clock, 1.0 if k == best else 2.0), 3, requests, 4
    )
    assert choice["draft_heads"] == best
    expected = {k: 4 * fastest.TOKENS / (1.0 if k == best else 2.0) for k in (1, 2, 3)}
    assert choice["tokens_per_s"] == expected
    assert choice["note"].startswith("machine-dependent")


def test_auto_is_recorded_and_kept_by_a_journal(tmp_path):
    path = str(tmp_path / "journal")
    lm = model(draft_heads="auto", journal=path)
    answers = lm.generate_until(asks(CODE))
    assert answers == model(draft_heads=1).generate_until(asks(CODE))
    mtp = json.loads(json.dumps(lm.get_model_info()["mtp"]))
    assert mtp["draft_heads"] == mtp["draft_heads_auto"]["draft_heads"]
    assert set(mtp["draft_heads_auto"]["tokens_per_s"]) == {"1", "2", "3", "4"}
    other = next(k for k in (1, 2) if k != mtp["draft_heads"])
    header = Path(path).read_text().splitlines()[0]
    text = header.replace(f'"draft_heads": {mtp["draft_heads"]},', f'"draft_heads": {other},')
    Path(path).write_text(text + "\n")  # as if another k had won then
    again = model(draft_heads="auto", journal=path)
    again.generate_until(asks(CODE))
    assert again.get_model_info()["mtp"]["draft_heads"] == other


# Acceptance


def test_unverified_drafts_are_labelled_lossy():
    lm = model(acceptance="all")
    answers = lm.generate_until(asks(CODE))
    assert {answer.record.tokens_per_forward for answer in answers} == {23 / 6}
    mtp = lm.get_model_info()["mtp"]
    assert (mtp["lossless"], mtp["acceptance"]) == (False, "all")
    assert mtp["draft_rule"].startswith("LOSSY")
    assert mtp["totals"]["accept_rate_prefix"] == {}


def test_a_draft_threshold_is_lossless():
    lm = model(draft_threshold=0.7)
    answers = lm.generate_until(asks(CODE))
    assert answers == model(draft_heads=1).generate_until(asks(CODE))
    assert any(answer.record.n_drafted for answer in answers)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"acceptance": "some"}, "acceptance=some, expected exact"),
        ({"draft_threshold": 1.5}, "draft_threshold=1.5, expected a probability"),
        ({"pretrained": ""}, "pretrained= is empty"),
    ],
)
def test_odd_values_are_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        MTPLM.create_from_arg_obj(dict(arguments), {"device": "cpu"})
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_is_one_sentence():
    with pytest.raises(UserError, match="t, document 1: the prompt is empty"):
        model().generate_until(asks(["a", ""]))


def test_nothing_is_decoded_before_every_request_was_looked_at(monkeypatch):
    lm = model()
    monkeypatch.setattr(lm._generator, "engine", None)
    with pytest.raises(UserError, match="max_gen_toks=0"):
        lm.generate_until([*asks(CODE), *asks(CODE, max_gen_toks=0)])


def test_unknown_acceptance_is_refused_by_decoding_itself():
    with pytest.raises(ValueError, match="expected exact"):
        Decoding(None, 0.0, "typical", 0, None)


# Progress


def test_the_bar_shows_answers_tokens_per_second_and_per_forward(capsys):
    [answer] = model(dtype="float32").generate_until(asks(CODE[:1]), disable_tqdm=True)
    assert capsys.readouterr().err.count("tokens/s") == 0
    with Progress(5, 2, hidden=False) as bar:
        bar.add(Answer([1] * 24, answer.record))
    shown = capsys.readouterr().err
    assert "3/5" in shown and "tokens/s" in shown
    assert f"{answer.record.tokens_per_forward:.2f} tokens/forward" in shown
