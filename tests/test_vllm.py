"""`--model mtp-vllm` itself, against our own engine on the same checkpoint: `make test-vllm`."""

import atexit
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from unittest.mock import patch

import pytest

pytest.importorskip("vllm", reason="needs vLLM: make test-vllm")

from lm_eval.api.instance import Instance

from mtp_harness.commands import verify, verify_vllm
from mtp_harness.decode.records import Generation
from mtp_harness.decode.vllm_counts import REJECTION_RULE
from mtp_harness.errors import UserError
from mtp_harness.harness.task_index import find_requested, our_index
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.probes.speculative import SpeculativeQuestion
from mtp_harness.probes.speed import SpeedQuestion
from mtp_harness.vllm import MTPVLLM

from .decode.vllm_counts.requests import CONTEXT, write_checkpoint

PROMPTS = ["def add", "Once upon", "x = [1, 2"]
ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": CONTEXT,
    "max_num_seqs": 4,
    "trust_remote_code": True,
}
COUNTS = ("tokens", "n_verified", "n_drafted", "n_kept", "ended_by", "n_prompt_tokens")


def asks(repeats=1, **kwargs):
    given = {"do_sample": False, "max_gen_toks": 30, "until": [], **kwargs}
    asked = [
        Instance("generate_until", {}, (prompt, copy.deepcopy(given)), 0, ("t", i, repeats))
        for i, prompt in enumerate(PROMPTS)
    ]
    return [instance for instance in asked for _ in range(repeats)]


def of_task(kind, *questions):
    return [Instance(kind, {}, question, 0, ("t", i, 1)) for i, question in enumerate(questions)]


def counted(record):
    return {name: getattr(record, name) for name in COUNTS}


def rewrite(folder, changes):
    """Change the configuration of a checkpoint; return its folder."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(folder)


FAMILIES = [pytest.param(f, marks=pytest.mark.xdist_group(f)) for f in ("glm4_moe", "mimo")]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    found = tmp_path_factory.mktemp(request.param)
    write_checkpoint(found, request.param)
    return str(found)


@pytest.fixture(scope="module")
def vllm(folder):
    with patch.object(atexit, "register", wraps=atexit.register) as register:
        lm = MTPVLLM(folder, draft_heads=4, seed=3, **ENGINE)
    yield lm
    asked = [one.args for one in register.call_args_list if one.args[1:] == (weakref.ref(lm),)]
    # As at the end of a program; here it would come while the next engine has what both share.
    ((at_exit, model),) = asked
    for _ in range(2):
        at_exit(model)
        assert not hasattr(lm, "model")


@pytest.fixture(scope="module")
def ours(folder):
    """Our own engine with heads 1..k of the same checkpoint, read as vLLM reads it."""

    def with_heads(k):
        lm = MTPLM(folder, device="cpu", draft_heads=k, dtype="float32", max_length=CONTEXT)
        lm.model.family = lm.model.family.as_engines_do()
        return lm

    return with_heads


def compare_greedy_answers(vllm, own):
    """Check that both decode the same text in the same steps."""
    n_verified = 0
    for until in ([], ["e"], ["ab", "n"]):
        found, expected = (lm.generate_until(asks(until=until)) for lm in (vllm, own))
        for one, its in zip(found, expected, strict=True):
            assert isinstance(one, Generation)
            # vLLM leaves out the bytes of a character that an answer ends within.
            assert str.__str__(one) == its.rstrip("\ufffd")
            assert counted(one.record) == counted(its.record)
            n_verified += sum(one.record.n_verified)
    assert (n_verified > 0) == (vllm.k > 1)


@pytest.mark.parametrize("batch_size", [1, 2, "auto"])
def test_answers_do_not_depend_on_the_batch(vllm, ours, monkeypatch, caplog, batch_size):
    monkeypatch.setattr(vllm, "batch_size", batch_size)
    found, expected = (lm.generate_until(asks()) for lm in (vllm, ours(4)))
    assert [counted(a.record) for a in found] == [counted(a.record) for a in expected]
    rows = {1: [1, 1, 1], 2: [2, 2, 1], "auto": [3, 3, 3]}[batch_size]
    assert [one.record.batch_size for one in found] == rows
    assert ("batch_size=1: vLLM decodes one request at a time" in caplog.text) == (batch_size == 1)


SAMPLED = [{"do_sample": True, "temperature": 1.0}, {"do_sample": True}, {"temperature": 1.0}]


@pytest.mark.parametrize("how", SAMPLED)
def test_samples_differ_by_repeat_and_say_their_rule(vllm, how):
    found = vllm.generate_until(asks(repeats=3, **{"do_sample": None, **how}))
    assert all(len({*found[i : i + 3]}) == 3 for i in (0, 3, 6))
    assert {one.record.draft_rule for one in found} == {REJECTION_RULE}


def test_a_task_that_does_not_ask_for_samples_gets_greedy_answers(vllm):
    """vLLM's own default is to sample."""
    assert vllm.generate_until(asks(do_sample=None)) == vllm.generate_until(asks())


def test_a_journal_answers_what_it_holds(vllm, monkeypatch, tmp_path):
    monkeypatch.setattr(vllm, "_journal_file", tmp_path / "j")
    requests, generate, decoded = (
        asks(repeats=2, do_sample=True, temperature=1.0),
        vllm.generate,
        [],
    )

    def noted(some, keep, quiet=False):
        decoded.append(len(some))
        generate(some, keep, quiet)

    monkeypatch.setattr(vllm, "generate", noted)
    first = vllm.generate_until(requests[:4])
    whole = vllm.generate_until(requests)
    assert decoded == [4, 2] and whole[:4] == first
    assert [a.record for a in whole[:4]] == [a.record for a in first]
    assert vllm.generate_until(requests) == whole and decoded == [4, 2]
    monkeypatch.setattr(vllm, "_seed", 4)
    with pytest.raises(UserError, match="seed"):
        vllm.generate_until(requests)


def test_log_likelihoods_are_head_1_s(vllm, ours):
    own = ours(1)
    pairs = [("def add", "(a, b)"), ("x = ", "[1]")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found, expected = vllm.loglikelihood(requests), own.loglikelihood(requests)
    for (a, greedy), (b, expected_greedy) in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-3) and greedy == expected_greedy
    rolling = [Instance("loglikelihood_rolling", {}, ("x = [1, 2]" * 3,), 0)]
    expected = own.loglikelihood_rolling(rolling)
    assert vllm.loglikelihood_rolling(rolling) == pytest.approx(expected, rel=1e-4)


def test_results_name_the_engine(vllm, monkeypatch):
    monkeypatch.setattr(vllm, "_records", [])  # a run has one k
    vllm.generate_until(asks())
    mtp = vllm.get_model_info()["mtp"]
    assert mtp["engine"]["name"] == "vllm" and mtp["engine"]["version"].startswith("0.32")
    assert (mtp["draft_heads"], mtp["n_future_tokens"], mtp["dtype"]) == (4, 4, "float32")
    assert mtp["totals"]["n_steps"] > 0 and json.dumps(mtp)


def test_odd_generation_arguments_are_one_sentence(vllm):
    with pytest.raises(UserError, match="t, document 0: .*odd"):
        vllm.generate_until(asks(odd=1))
    with pytest.raises(UserError, match="t, document 0: top_p must be in .* got 2.0"):
        vllm.generate_until(asks(do_sample=True, top_p=2))
    with pytest.raises(UserError, match="t, document 0: n is above 1, expected one answer"):
        vllm.generate_until(asks(n=2))
    with pytest.raises(UserError, match=f"no room for a prompt in a context of {CONTEXT} tokens"):
        vllm.generate_until(asks(max_gen_toks=CONTEXT))


DRAFTERS = [("eagle", "eagle1", 3), ("eagle3", "eagle3", 4), ("medusa", "medusa", 3)]


@pytest.mark.parametrize(("method", "drafter", "k"), DRAFTERS)
def test_a_drafter_accepts_as_in_our_own_engine(shared_data, tmp_path, method, drafter, k):
    data, trunk = shared_data / "drafters", str(tmp_path)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(data / "trunk" / name, tmp_path / name)
    byte_tokenizer(CONTEXT).save_pretrained(trunk)
    how = {"drafter": str(data / drafter), "draft_heads": k}
    vllm = MTPVLLM(trunk, method=method, **how, **ENGINE)
    own = MTPLM(trunk, device="cpu", dtype="float32", max_length=CONTEXT, **how)
    found, expected = (lm.generate_until(asks()) for lm in (vllm, own))
    told, its = (lm.get_model_info()["mtp"] for lm in (vllm, own))
    vllm.close()
    assert [counted(one.record) for one in found] == [counted(one.record) for one in expected]
    assert any(sum(one.record.n_verified) for one in found)
    for name in ("drafter", "drafter_sha256", "heads", "draft_heads"):
        assert told[name] == its[name], name


# Probes -----------------------------------------------------------------------------------------


def test_every_k_decodes_as_our_own_engine_does(vllm, ours, monkeypatch):
    """Tasks that decode are asked between the questions of mtp_speculative: a start takes long."""
    kinds = [("code", ()), ("prose", ("e",)), ("code", ())]
    requests = of_task(
        "speculative",
        *(
            (prompt, SpeculativeQuestion(kind, 24, until))
            for prompt, (kind, until) in zip(PROMPTS, kinds, strict=True)
        ),
    )
    with_heads, seen = vllm.with_heads, []

    def with_heads_and_answers(k):
        with_heads(k)
        with monkeypatch.context() as patch:
            patch.setattr(vllm, "how", vllm.how_with(k))
            patch.setattr(vllm, "with_heads", with_heads)
            compare_greedy_answers(vllm, ours(k))
        seen.append(k)

    with monkeypatch.context() as patch:
        patch.setattr(vllm, "with_heads", with_heads_and_answers)
        found = vllm.speculative(requests)
    assert seen == [4, 1, 2, 3]
    for one, its in zip(found, ours(4).speculative(requests), strict=True):
        assert [at["identical"] for at in one["by_k"]] == [True] * 4
        for at, its_at in zip(one["by_k"], its["by_k"], strict=True):
            assert {n: at["record"][n] for n in COUNTS} == {n: its_at["record"][n] for n in COUNTS}
            assert at["tokens"] == its_at["tokens"] and at["errors"] is None and at["wall_s"] > 0


def test_speed_times_exactly_what_was_asked(vllm):
    cells = [SpeedQuestion(b, 16, 20, trials=2, heads=(1, 3)) for b in (1, 3, 5)]
    small, large, too_large = vllm.speed(of_task("speed", *(("cell", one) for one in cells)))
    for found, batch in ((small, 1), (large, 3)):
        trials = sorted((run["k"], run["trial"]) for run in found["runs"])
        assert trials == [(k, trial) for k in (1, 3) for trial in (0, 1)]
        for run in found["runs"]:
            assert run["n_kept"] == batch * 19 and len(run["steps"]) == batch
            assert all(19 / run["k"] <= steps <= 19 for steps in run["steps"])
            assert run["wall_s"] == pytest.approx(run["prefill_s"] + run["decode_s"])
    reason = "5 rows are more than the engine decodes together (4)"
    assert [one["reason"] for one in too_large["not_measured"]] == [reason] * 2
    with pytest.raises(UserError, match="baseline=b does not work .* compare two runs"):
        vllm.speed(of_task("speed", ("c", SpeedQuestion(1, 16, 20, 1, baseline="b"))))
    with pytest.raises(UserError, match="heads=5, but .* has n = 4"):
        vllm.speed(of_task("speed", ("c", SpeedQuestion(1, 16, 20, 1, heads=(5,)))))
    assert vllm.k != 4 and vllm.generate_until(asks())[0].record.draft_heads == 4  # the run's own


def test_the_tasks_that_are_not_refused_have_a_method_here():
    """`tests/harness/test_checks.py` has the others, which need no vLLM to be refused."""
    requested = find_requested(list(our_index()), None)
    asking = [one.task_class for one in requested if hasattr(one.task_class, "request_type")]
    here = [one.request_type for one in asking if one.IN_VLLM]
    assert {*here} == {"speculative", "speed"} and all(hasattr(MTPVLLM, name) for name in here)


# Commands ---------------------------------------------------------------------------------------


def test_verify_compares_both_engines(folder, tmp_path, capsys, monkeypatch):
    """Answers may end at several tokens, as a chat model's do."""
    starter = verify_vllm.starter
    eager = {"enforce_eager": True}  # compiling takes longer than all the rest
    monkeypatch.setattr(verify_vllm, "starter", lambda place, how: starter(place, how | eager))
    shutil.copytree(folder, tmp_path / "m")
    ends = {"eos_token_id": [0, 12, 21]}
    folder = rewrite(tmp_path / "m", ends)
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(ends))  # vLLM reads this one
    words = ("--draft-heads", "4", "--prompts", "4", "--new-tokens", "40", "--batch", "4")
    out = tmp_path / "v.json"
    own = ("--engine", "vllm", "--dtype", "float32", "--trust-remote-code", "-o", str(out))
    assert verify.main([folder, *words, *own]) == 0
    shown = capsys.readouterr().out
    assert "4 of 4 answers are identical" in shown
    told = json.loads(out.read_text())["vllm"]
    assert [one["draft_heads"] for one in told] == [1, 4]
    for one in told:
        for pair in one["comparisons"]:
            assert (pair["errors"], pair["answers"]) == (0, 4) and pair["tokens"] in (36, 40)
        for at in one["accept_rate_prefix"]:
            assert at["ours"] == pytest.approx(at["vllm"], abs=1e-9)
    assert [at["offset"] for at in told[1]["accept_rate_prefix"]] == [2, 3, 4]


def lm_eval(place, *words, processes=False):
    """Run `lm_eval`; return the process that ended, and the processes that it left behind."""
    own = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1" if processes else "0"}
    started = subprocess.Popen(
        [sys.executable, "-m", "mtp_harness.cli", "lm_eval", "--model", "mtp-vllm", *words],
        cwd=place,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = started.communicate(timeout=900)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    until = time.monotonic() + 30  # helpers of the engine notice a moment later that it has ended
    while (left := _left_of(started.pid)) and time.monotonic() < until:
        time.sleep(0.5)
    return started.returncode, out, err, left


def _left_of(session):
    """Return the command lines of the processes of a session."""
    return [
        path.with_name("cmdline").read_bytes().replace(b"\0", b" ")
        for path in Path("/proc").glob("[0-9]*/stat")
        if _session(path) == session
    ]


def _session(stat):
    try:
        return int(stat.read_text().rsplit(")", 1)[1].split()[3])
    except (OSError, ProcessLookupError):
        return None


def test_a_whole_run_of_tasks_that_decode(folder, tmp_path):
    model = ENGINE | {"pretrained": folder, "draft_heads": 2, "max_model_len": 512}
    options = {"batch": [1, 2], "prompt_tokens": 32, "new_tokens": 24, "trials": 2}
    status, out, err, left = lm_eval(
        tmp_path,
        *("--model_args", json.dumps(model), "--limit", "2", "--batch_size", "auto"),
        *("--tasks", "humaneval_mtp,mtp_speculative,mtp_speed", "-o", "out", "--log_samples"),
        *("--gen_kwargs", "max_gen_toks=40", "--metadata", json.dumps(options)),
        processes="mimo" in folder,  # in one of the two: such an engine takes long to start
    )
    assert status == 0, err[-3000:]
    assert not left
    [path] = (tmp_path / "out").rglob("results_*.json")
    content = json.loads(path.read_text())
    mtp, results = content["config"]["mtp"], content["results"]
    assert mtp["engine"]["name"] == "vllm" and mtp["totals"]["n_steps"] > 0
    assert 1 <= results["humaneval_mtp"]["tokens_per_forward,none"] <= 2
    assert results["mtp_speculative"]["identical_2,none"] == 1
    assert results["mtp_speed"]["tokens_per_second_2,none"] > 0
    by_k = mtp["tables"]["mtp_speculative"]["by_k"]["rows"]
    assert {row[1] for row in by_k} == {1, 2} and "errors" not in {row[2] for row in by_k}
    assert len([*(tmp_path / "out").rglob("samples_*.jsonl")]) == 3


# What cannot be loaded --------------------------------------------------------------------------


def changed(folder, changes):
    write_checkpoint(folder, "glm4_moe")
    return rewrite(folder, changes)


TOO_LONG = {"max_position_embeddings": 4_000_000}


@pytest.mark.parametrize(
    ("changes", "arguments", "sentence"),
    [
        ({"architectures": ["OddForCausalLM"]}, {}, "vLLM .* cannot load .*OddForCausalLM"),
        ({"num_nextn_predict_layers": 0}, {"draft_heads": 2}, "promises no MTP module"),
        ({"num_nextn_predict_layers": 0}, {"method": "mtp"}, "method=mtp, .* no MTP module"),
        ({"num_nextn_predict_layers": 2}, {"draft_heads": 4}, "3 must be divisible by n_predict=2"),
        ({}, {"gpu_memory_utilisation": 0.5}, "_utilisation=0.5; did you mean gpu_memory_utilizat"),
        ({}, {"drat_heads": 2}, "unknown model argument drat_heads=2; did you mean draft_heads?"),
        ({}, {"parallelize": True}, "cannot load .*'parallelize'"),
        ({}, {"batch_size": 0}, "batch_size=0, expected a whole number from 1, or auto"),
        (TOO_LONG, {"max_model_len": 4_000_000}, "cannot load .*KV cache"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(tmp_path, changes, arguments, sentence):
    with pytest.raises((UserError, ValueError), match=sentence):
        MTPVLLM(changed(tmp_path, changes), **{**ENGINE, **arguments})


def test_an_engine_process_that_fails_leaves_neither_traceback_nor_process(tmp_path):
    model = ENGINE | {"pretrained": changed(tmp_path, TOO_LONG), "max_model_len": 4_000_000}
    words = ("--model_args", json.dumps(model), "--tasks", "humaneval_mtp", "--limit", "1")
    status, out, err, left = lm_eval(tmp_path, *words, processes=True)
    assert status == 1 and not left
    assert "Traceback" not in out + err
    assert "cannot load" in err.splitlines()[-1] and "KV cache" in err.splitlines()[-1]
