"""`--loader` and `--tokenizer`: the commands open models of layouts that are the user's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtp_harness.commands import demo, inspect, measure, verify
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import load_tokenizer, open_model

TOY = ["--loader", "parallel_toy:load", "--tokenizer", "mtp-bytes-n4"]


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")


def test_measure(tmp_path, capsys):
    sizes = "--windows 1 --window 64 --prompts 2 --prompt-tokens 16 --new-tokens 8 --batch 2"
    out = tmp_path / "out.json"
    assert measure.main([*TOY, *sizes.split(), "--device", "cpu", "-o", str(out)]) == 0
    assert capsys.readouterr().out.startswith("parallel_toy:load, ")
    found = json.loads(out.read_text())
    assert found["pretrained"] == "parallel_toy:load" and len(found["heads"]["accuracy"]) == 3
    assert [row["identical_to_ntp"] for row in found["decoding"]["by_k"].values()] == [2] * 3


def test_verify_in_the_type_that_is_asked_for(tmp_path, capsys):
    sizes = "--prompts 1 --new-tokens 8 --batch 2 --draft-heads 3 --dtype float64 --device cpu"
    assert verify.main([*TOY, *sizes.split(), "-o", str(tmp_path / "out.json")]) == 0
    assert "parallel_toy:load, n = 3, float64, greedy" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["pretrained"] == "parallel_toy:load"
    assert [one["errors"] for one in found["comparisons"]] == [0]
    with pytest.raises(ValueError, match="^--draft-heads 4, but parallel_toy:load has n = 3"):
        verify.main([*TOY, "--draft-heads", "4", "--device", "cpu"])


def test_inspect_says_what_the_loaded_model_is(capsys):
    assert inspect.main([*TOY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    described = ("layout", "architecture", "n_future_tokens", "vocabulary", "context", "tokenizer")
    assert [found[name] for name in described] == [
        *("loader", "ParallelToy", 3, 256, 4096),
        "mtp-bytes-n4 (256 tokens)",
    ]
    model = open_model(None, "parallel_toy:load", tokenizer="mtp-bytes-n4").model
    assert found["parameters"] == {"total": sum(p.numel() for p in model.parameters())}
    assert inspect.main([*TOY, "/ckpt/mine", "--probe"]) == 1  # nobody has trained it
    said = capsys.readouterr().out
    assert said.startswith("/ckpt/mine\n") and "read by your own loader" in said
    assert "n = 3 (offsets 1 to 3)\n" in said and "top-1 accuracy over" in said


def test_inspect_holds_another_tokenizer_against_a_checkpoint(tmp_path, capsys):
    larger = byte_tokenizer(64)
    larger.add_tokens(["<added>"])
    larger.save_pretrained(tmp_path)
    assert inspect.main(["mtp-bytes-n4", "--tokenizer", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path} (257 tokens)" in said and "ids up to 256 but the model" in said


def test_demo_opens_the_model_by_the_loader_of_the_run(tmp_path, monkeypatch, capsys):
    name = "parallel_toy:load"
    run = {"pretrained": name, "loader": name, "dtype": "float32", "device": "cpu"}
    config = {"model": "mtp", "mtp": {**run, "n_future_tokens": 3, "draft_heads": 3}}
    task = {"humaneval_mtp": {"pass@1,create_test": 0.0}}
    written = {"results": task, "configs": task, "config": config}
    (tmp_path / "results_1.json").write_text(json.dumps(written))
    arguments = {"arg_0": "def f():", "arg_1": {"max_gen_toks": 6, "until": ["\nclass"]}}
    sample = {"arguments": {"gen_args_0": arguments}, "resps": [["no such text"]], "pass@1": 0}
    (tmp_path / "samples_humaneval_mtp_1.jsonl").write_text(json.dumps(sample) + "\n")
    monkeypatch.setattr(demo, "WINDOWS", 1)
    monkeypatch.setattr(demo, "WINDOW", 64)
    assert demo.main([str(tmp_path), "--tokenizer", "mtp-bytes-n4"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("parallel_toy:load, 3 heads") and "NTP    0 of 1" in said


@pytest.mark.parametrize("command", [inspect, measure, verify])
def test_a_loader_without_a_tokenizer(command):
    with pytest.raises(ValueError, match=r"^--loader parallel_toy:load gives no tokenizer, exp"):
        command.main(TOY[:2])
    with pytest.raises(ValueError, match=r"^loader=parallel_toy:lode: .* has no lode"):
        command.main(["--loader", "parallel_toy:lode", *TOY[2:]])


def test_open_model_brings_a_loader_s_model_into_the_state_in_which_it_is_used():
    tokenizer = load_tokenizer("mtp-bytes-n4")
    opened = open_model(None, "parallel_toy:load", tokenizer=tokenizer, dtype=torch.float64)
    assert opened.tokenizer is tokenizer
    assert not opened.model.training and opened.model.dtype is torch.float64
    with pytest.raises(ValueError, match="^loader=parallel_toy:load gives no tokenizer"):
        open_model(None, "parallel_toy:load")
    tokenizer.add_tokens(["<added>"])
    with pytest.raises(ValueError, match="ids up to 256 but parallel_toy:load has a vocabulary"):
        open_model(None, "parallel_toy:load", tokenizer=tokenizer)


def test_what_is_wrong_with_the_arguments_is_said_before_anything_heavy_is_loaded():
    code = """
import contextlib, io, sys
from mtp_harness import cli
said = []
for command in ("inspect", "convert", "measure", "verify", "demo"):
    for arguments in (["--help"], ["--no-such-option"], [] if command != "verify" else ["-o"]):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                cli.main([command, *arguments])
            except SystemExit as error:
                said.append(error.code)
assert said == [0, 2, 2] * 5, said
assert not {"torch", "transformers", "lm_eval", "numpy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
