"""`mtp-harness train` from a folder of Python files to a model that every loader reads."""

import json
import random
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtp_harness.cli import main
from mtp_harness.commands.train import build, parser
from mtp_harness.data.corpus import code_corpus
from mtp_harness.models.load import load_model, load_tokenizer
from mtp_harness.training.loss import backward_head_by_head

from ..training.making_text import evaluation, make

SMALL = (
    "--steps 40 --rows 4 --context 64 --short-context 32 --warmup 5 --log-every 10 --save-every 15"
    " --layers 5 --width 32 --ffn 48 --attention-heads 2 --peak-lr 0.01 --device cpu"
).split()


def source(seed):
    rng = random.Random(seed)
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    return "".join(
        f"{rng.choice(words)}_{rng.choice(words)} = {rng.choice(words)}('{rng.choice(words)}{i}')\n"
        for i in range(80)
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Training text made from a few files, with a standard library of one file to stay clear of."""
    folder = tmp_path_factory.mktemp("text")
    site, library = folder / "site" / "package", folder / "library"
    for place in (site, library):
        place.mkdir(parents=True)
    for number in range(6):
        (site / f"m{number}.py").write_text(source(number), encoding="utf-8")
    (library / "other.py").write_text(source("library"), encoding="utf-8")
    corpus = code_corpus(library)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "code_corpus", lambda: corpus)
        patch.setattr(evaluation, "_packaged_humaneval", lambda: None)
        made = make.build([folder / "site"], jobs=1)
    made.save(folder / "text")
    return folder / "text"


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    arguments = ["train", str(out), "--data", str(text), "--n", "3", *SMALL]
    assert main(arguments) == 0
    return out, arguments[1:]


def test_train_writes_a_folder_that_every_loader_reads(trained):
    out, _ = trained
    strict = load_model(str(out), torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert (strict.n_future_tokens, strict.max_positions) == (3, 64)
    assert load_model(str(out), None).dtype == torch.bfloat16
    tokens = torch.tensor([[0, *b"alpha_12 = be"]])
    with torch.no_grad():
        ours = strict.next_token_logits(tokens)
        assert torch.allclose(ours, plain(tokens).logits, atol=1e-5)
    for tokenizer in (load_tokenizer(str(out)), AutoTokenizer.from_pretrained(out)):
        assert tokenizer("alpha").input_ids == [0, *b"alpha"]
        assert tokenizer.model_max_length == 64
    assert not list(out.glob("state.pt*"))


def test_byte_0_which_opens_every_document_is_trained(text, tmp_path):
    model = build(parser().parse_args([str(tmp_path), "--data", str(text), *SMALL]))
    embedding = model.model.embed_tokens.weight
    assert embedding[0].abs().max() > 0
    backward_head_by_head(model, torch.tensor([[0, *b"alpha_12 = beta"]]))
    assert embedding.grad[0].abs().max() > 1e-6


def test_train_records_what_it_did(trained, text):
    out, arguments = trained
    record = json.loads((out / "training.json").read_text())
    assert [line["step"] for line in record["curve"]] == [10, 20, 30, 40]
    first, last = (record["curve"][i]["loss_nats"] for i in (0, -1))
    assert len(first) == len(last) == 3
    assert all(after < 0.8 * before for before, after in zip(first, last, strict=True))
    assert record["recipe"]["steps"] == 40 and record["recipe"]["peak_lr"] == 0.01
    assert record["command"] == "mtp-harness train " + " ".join(arguments)
    assert record["data"] == json.loads(text.with_name("text.json").read_text())
    model = load_model(str(out), None)
    assert record["parameters"] == sum(p.numel() for p in model.parameters())
    assert record["versions"]["torch"] == torch.__version__


def test_the_end_says_where_the_model_is_and_what_to_do_next(text, tmp_path, capsys):
    out = tmp_path / "m"
    arguments = ["--n", "1", *SMALL, "--steps", "4", "--log-every", "2"]
    assert main(["train", str(out), "--data", str(text), *arguments]) == 0
    said = capsys.readouterr()
    saved, then = said.out.splitlines()
    record = json.loads((out / "training.json").read_text())
    assert [line["step"] for line in record["curve"]] == [2, 4]
    (loss,) = record["curve"][-1]["loss_nats"]
    assert saved.startswith(f"saved to {out}: ") and f"last batch {loss:.3f} nats" in saved
    assert then.startswith(f"next: lm_eval --model mtp --model_args pretrained={out} ")
    assert "100%" in said.err and "4/4" in said.err and f"loss={loss:.2f}" in said.err
    assert "note: the learning rate warms up for 5 steps and the run has 4" in said.err
    assert load_model(str(out), None).config.replicated_unembeddings is False


def test_a_folder_with_a_model_is_left_alone(trained, text, capsys):
    out, arguments = trained
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["train", *arguments]) == 2
    assert "holds a model, expected a folder without one" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "9"], "--n 9: at most 8 heads."),
        (["--n", "5"], "n_future_tokens=5 with num_hidden_layers=5"),
        (["--short-context", "65"], "--short-context 65 with --context 64"),
        (["--context", "99999"], "shorten the context or give more data"),
    ],
)
def test_wrong_arguments_are_one_line(text, tmp_path, capsys, arguments, message):
    assert main(["train", str(tmp_path / "m"), "--data", str(text), *SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_too_little_memory_is_one_line(monkeypatch, text, tmp_path, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 468.00 MiB. GPU 0 has")

    monkeypatch.setattr("mtp_harness.training.loop.train", full)
    assert main(["train", str(tmp_path / "m"), "--data", str(text), *SMALL]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mtp-harness train: the memory of cpu does not hold 4 rows of 64 bytes")
    assert "lower --rows or --context and name another folder." in error


def test_missing_text_is_one_line(tmp_path, capsys):
    assert main(["train", str(tmp_path / "m"), "--data", str(tmp_path / "none"), *SMALL]) == 2
    error = capsys.readouterr().err
    assert "made by examples/training_text/make.py" in error and error.count("\n") == 1


def test_a_folder_of_text_can_be_trained_on(tmp_path):
    (tmp_path / "text").mkdir()
    for number in range(2):
        (tmp_path / "text" / f"{number}.txt").write_text(source(number))
    arguments = [str(tmp_path / "m"), "--data", str(tmp_path / "text"), *SMALL, "--steps", "2"]
    assert main(["train", *arguments]) == 0
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert len(record["curve"][-1]["held_out_nats"]) == 4
    assert record["data"]["n_documents"] == 2
    assert record["recipe"]["data_sha256"] == record["data"]["data_sha256"]


@pytest.mark.parametrize("words", [["--help"], [], ["out", "--data", "x", "--no-such-option", "1"]])
@pytest.mark.parametrize("command", ["train", "run"])
def test_usage_is_said_before_torch_or_the_harness_is_loaded(command, words):
    code = f"""
import sys
from mtp_harness.cli import main
try:
    main({[command, *words]})
except SystemExit as end:
    print(end.code, *sorted({{"torch", "lm_eval", "numpy", "yaml"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ("0" if words == ["--help"] else "2")
    assert f"usage: mtp-harness {command}" in done.stdout + done.stderr
