"""`mtp-harness convert`: the same model and tokenizer in a folder, or nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtp_harness.commands.convert import main
from mtp_harness.models import convert as convert_module
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.meta import load_meta, meta_tokenizer
from mtp_harness.models.convert import convert
from mtp_harness.models.load import MTP_LLAMA, detect, load_model, load_tokenizer

from ..models.conftest import no_network  # noqa: F401  no test here may reach for the network
from ..models.meta_reference import SMALL, logits, random_weights, write

TEXT = "  def f(x):\n    return x  # </s> \u6f22"


def test_round_trip(meta_folder, tmp_path, capsys):
    target = tmp_path / "deep" / "out"
    assert main([str(meta_folder), str(target)]) == 0
    said = capsys.readouterr().out
    assert "n = 4" in said and "all 57 tensors equal" in said and str(target) in said
    assert detect(str(target)) is MTP_LLAMA
    source, written = load_meta(meta_folder), load_model(str(target))
    assert source.state_dict().keys() == written.state_dict().keys()
    for name, tensor in source.state_dict().items():
        assert torch.equal(written.state_dict()[name], tensor), name
    assert written.max_positions == 4096
    assert load_tokenizer(str(target)).encode(TEXT) == meta_tokenizer(meta_folder).encode(TEXT)
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_tokenizer_of_one_s_own(meta_folder, tmp_path):
    tokenizer = byte_tokenizer(700)
    tokenizer.save_pretrained(tmp_path / "bytes")
    (meta_folder.parent / "tokenizer.model").unlink()  # released apart from the weights
    named = ["--tokenizer", str(tmp_path / "bytes")]
    assert main([str(meta_folder), str(tmp_path / "out"), *named]) == 0
    written = load_tokenizer(str(tmp_path / "out"))
    assert written.encode("caf\u00e9") == [0, *"caf\u00e9".encode()]  # a byte is its own id
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 0)
    tokenizer.add_tokens([f"<{i}>" for i in range(200)])
    tokenizer.save_pretrained(tmp_path / "bytes")
    with pytest.raises(ValueError, match="has ids up to 455 but .* a vocabulary of 420"):
        main([str(meta_folder), str(tmp_path / "other"), *named])
    assert not (tmp_path / "other").exists()


def test_transformers_loads_the_folder_by_itself(meta_folder, tmp_path):
    convert(meta_folder, tmp_path / "out")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out").encode(TEXT, return_tensors="pt")
    params = {**SMALL, "vocab_size": 420}
    expected = logits(params, random_weights(params), tokens[0].tolist())[:, 0]
    with torch.no_grad():
        assert (model(tokens).logits[0].double() - expected).abs().max() < 1e-5
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)


def test_a_place_where_nothing_can_be_written(meta_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (Path("/proc/x"), tmp_path / "file" / "x" / "y"):
        with pytest.raises(ValueError, match="cannot be written") as caught:
            convert(meta_folder, target)
        assert str(target) in str(caught.value) and "Errno" not in str(caught.value)


def test_a_byte_order_mark_is_read_over(meta_folder, tmp_path):
    text = (meta_folder / "params.json").read_text()
    (meta_folder / "params.json").write_text(text, encoding="utf-8-sig")
    convert(meta_folder, tmp_path / "out")


def test_a_fresh_process_loads_the_folder(meta_folder, tmp_path):
    """Nothing that this process registered or cached is needed."""
    convert(meta_folder, tmp_path / "out")
    code = (
        "import mtp_harness.models; from transformers import AutoModelForCausalLM as A;"
        f"m = A.from_pretrained({str(tmp_path / 'out')!r}); print(m.n_future_tokens)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "4", done.stderr


def test_others_may_read_what_was_written(meta_folder, tmp_path):
    before = os.umask(0o022)
    try:
        convert(meta_folder, tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_dtype(meta_folder, tmp_path):
    assert main([str(meta_folder), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    written = load_model(str(tmp_path / "out"))
    assert {p.dtype for p in written.parameters()} == {torch.bfloat16}
    for name, tensor in load_meta(meta_folder).state_dict().items():
        assert torch.equal(written.state_dict()[name], tensor.bfloat16()), name


def test_provenance_names_files_not_paths(meta_folder, tmp_path):
    convert(meta_folder, tmp_path / "out")
    text = (tmp_path / "out" / "conversion.json").read_text()
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert content["source_folder"] == "7B_4" and content["params"]["n_future_tokens"] == 4
    size = (meta_folder / "consolidated.pth").stat().st_size
    assert content["source_files"]["consolidated.pth"] == size
    assert "tokenizer.model" in content["source_files"]


def test_existing_folder_is_left_alone(meta_folder, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    convert(meta_folder, target)  # empty: fine
    before = sorted((p.name, p.stat().st_mtime_ns) for p in target.iterdir())
    with pytest.raises(ValueError, match="exists, expected a new or empty folder"):
        convert(meta_folder, target)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in target.iterdir()) == before
    with pytest.raises(ValueError, match="exists"):
        convert(meta_folder, target / "config.json")


def test_converted_folder_is_refused_as_a_source(meta_folder, tmp_path):
    convert(meta_folder, tmp_path / "out")
    with pytest.raises(ValueError, match="transformers folder already"):
        convert(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("fault", ["weights", "tokenizer", "disk", "readback"])
def test_nothing_is_left_behind_by_a_failure(meta_folder, tmp_path, monkeypatch, fault):
    if fault == "weights":
        (meta_folder / "consolidated.pth").write_bytes(b"x")
    elif fault == "tokenizer":
        (meta_folder.parent / "tokenizer.model").unlink()
    elif fault == "disk":

        def full(*_, **__):
            raise ValueError("no space left")

        monkeypatch.setattr(convert_module.Path, "write_text", full)
    else:
        loaded = load_meta(meta_folder)
        loaded.lm_head.weight.data[3, 4] += 1
        monkeypatch.setattr(convert_module, "load_folder", lambda folder: loaded)
    target = tmp_path / "elsewhere" / "out"
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        convert(meta_folder, target)
    if fault == "readback":
        assert "lm_head.weight" in str(caught.value)
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_shards_are_converted(tmp_path, sentencepiece_model):
    params = {**SMALL, "vocab_size": 420}
    folder = write(tmp_path / "m", params, random_weights(params), 2)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    convert(folder, tmp_path / "out")
    tokens = torch.tensor([[1, 5, 300, 7]])
    expected = logits(params, random_weights(params), tokens[0].tolist())
    model = load_model(str(tmp_path / "out"))
    with torch.no_grad():
        state = model.head(4, model.trunk(tokens))
        assert (model.logits(4, state)[0].double() - expected[:, 3]).abs().max() < 1e-5
