"""Broken releases: each gets one sentence that says what was found, and no code is run."""

import argparse
import json
import pickle
import warnings

import pytest
import torch

from mtp_harness.models.checkpoints.meta import load_meta, meta_tokenizer
from mtp_harness.models.inspection import summarise
from mtp_harness.models.load import load_model, load_tokenizer

from .meta_reference import SMALL, random_weights, write


@pytest.fixture
def release(tmp_path):
    return write(tmp_path / "7B_4", SMALL, random_weights(SMALL))


def refusal(error, call, *arguments):
    """The message of the error that a call ends in; one sentence, on one line."""
    with warnings.catch_warnings(), pytest.raises(error) as caught:
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Sparse invariant checks")  # torch 2.11 loads them so
        call(*arguments)
    assert caught.type is error  # not a subclass from inside torch
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    return message


def edit_params(folder, **changes):
    params = {**json.loads((folder / "params.json").read_text()), **changes}
    (folder / "params.json").write_text(json.dumps(params))


def edit_weights(folder, change):
    weights = torch.load(folder / "consolidated.pth")
    change(weights)
    torch.save(weights, folder / "consolidated.pth")


def assert_says(message, *facts):
    for fact in facts:
        assert fact in message, (fact, message)


def test_missing_and_unexpected_keys_are_both_named(release):
    def change(weights):
        weights["layers.1.attention.wz.weight"] = weights.pop("layers.1.attention.wq.weight")

    edit_weights(release, change)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "missing: layers.1.attention.wq", "unexpected: layers.1.attention.wz")


def test_many_missing_keys_are_counted_not_poured_out(release):
    edit_weights(release, lambda w: [w.pop(k) for k in list(w) if "feed_forward" in k])
    assert_says(refusal(ValueError, load_meta, release), "missing: ", "and 15 more")


def test_wrong_shape_names_both(release):
    def change(weights):
        weights["layers.0.attention.wk.weight"] = torch.zeros(32, 32)

    edit_weights(release, change)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "layers.0.attention.wk.weight is [32, 32], expected [16, 32]")


@pytest.mark.parametrize(("said", "extra"), [(2, 1), (5, 4), (1, 0)])
def test_head_count_that_contradicts_the_weights(release, said, extra):
    edit_params(release, n_future_tokens=said)
    message = refusal(ValueError, load_meta, release)
    assert_says(
        message,
        f"n_future_tokens={said} means {extra} extra_heads but there are 3",
        "as with n_future_tokens=4",
    )


def test_head_count_left_out(release):
    params = {k: v for k, v in SMALL.items() if k != "n_future_tokens"}
    (release / "params.json").write_text(json.dumps(params))
    assert_says(refusal(ValueError, load_meta, release), "as with n_future_tokens=4")


def test_extra_head_lost_from_the_weights(release):
    edit_weights(release, lambda w: [w.pop(k) for k in list(w) if k.startswith("extra_heads.2")])
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "n_future_tokens=4 means 3 extra_heads but there are 2", "missing: ")


def test_layer_count_that_contradicts_the_weights(release):
    edit_params(release, n_layers=7)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "n_layers=7 but there are 6 blocks (3 layers and 3 extra_heads)")


def test_ffn_width_that_contradicts_the_weights(release):
    edit_params(release, multiple_of=64)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "multiple_of=64", "FFN width of 128 but it is 96")


def test_vocabulary_that_contradicts_the_weights(release):
    edit_params(release, vocab_size=70)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "tok_embeddings.weight is [61, 32], expected [70, 32]")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_name_the_tensor(release, value):
    def change(weights):
        weights["extra_heads.1.attention.wk.weight"][3, 4] = value

    edit_weights(release, change)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "NaN or infinity", "extra_heads.1.attention.wk.weight")
    assert "layers.0" not in message


def test_overflow_of_a_narrow_type_is_no_silent_infinity(release):
    def change(weights):
        weights["norm.weight"][0] = 1e6

    edit_weights(release, change)
    load_meta(release)
    assert_says(refusal(ValueError, load_meta, release, torch.float16), "float16", "norm.weight")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 0.9999])
def test_truncated_file(release, share):
    path = release / "consolidated.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_says(refusal(ValueError, load_meta, release), "consolidated.pth", "truncated")


def test_lfs_pointer(release):
    (release / "consolidated.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\nsize 9\n"
    )
    assert_says(refusal(ValueError, load_meta, release), "Git LFS pointer", "git lfs pull")


class Trap:
    """Unpickling this touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_the_file_is_not_run(release, tmp_path):
    mark = tmp_path / "ran"
    edit_weights(release, lambda w: w.update(trap=Trap(mark)))
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "carries code", "open", "not run")
    assert not mark.exists()


def test_code_that_the_first_look_misses_is_not_run(release, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    edit_weights(release, lambda w: w.update(trap=Trap(mark)))
    look = "mtp_harness.models.checkpoints.meta_shards.get_unsafe_globals_in_checkpoint"
    monkeypatch.setattr(look, lambda file: [])
    assert_says(refusal(ValueError, load_meta, release), "cannot be read as weights")
    assert not mark.exists()


def test_foreign_class_in_the_file_is_named(release):
    edit_weights(release, lambda w: w.update(args=argparse.Namespace(lr=1)))
    assert_says(refusal(ValueError, load_meta, release), "carries code", "argparse.Namespace")


def test_bare_pickle_is_not_run(release, tmp_path):
    mark = tmp_path / "ran"
    (release / "consolidated.pth").write_bytes(pickle.dumps({"trap": Trap(mark)}))
    assert_says(refusal(ValueError, load_meta, release), "no file that torch.save wrote")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({}, "is empty"),
        ({"model": {"norm.weight": torch.zeros(1)}}, "holds model"),
        ({"norm.weight": torch.zeros(1), "step": torch.tensor(3)}, "holds step (int64)"),
        ({"x": torch.zeros(2, 2).to(torch.float8_e4m3fn)}, "holds x (float8_e4m3fn)"),
        ({"x": torch.ones(2, 2).to_sparse()}, "holds x (nested or sparse_coo)"),
        ({"x": torch.ones(2, device="meta")}, "holds x (without data, on the meta device)"),
        ({"x": torch.zeros(2, dtype=torch.complex64)}, "holds x (complex64)"),
        ({"x": [1.0]}, "holds x (list)"),
    ],
)
def test_file_with_something_else_in_it(release, content, fact):
    torch.save(content, release / "consolidated.pth")
    assert_says(refusal(ValueError, load_meta, release), fact, "save the state dict")
    assert any(fact in problem for problem in summarise(str(release)).problems)


@pytest.mark.parametrize(
    "name",
    ["tok_embeddings", "output", "norm", "layers.0.attention.wo", "layers.0.feed_forward.w1"],
)
@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize("vocabulary", [-1, 64])
def test_scalar_in_place_of_a_tensor(tmp_path, name, n_shards, vocabulary):
    params = {**SMALL, "vocab_size": 64}
    weights = random_weights(params)
    folder = write(tmp_path / "m", {**params, "vocab_size": vocabulary}, weights, n_shards)
    for file in folder.glob("*.pth"):
        weights = torch.load(file)
        torch.save({**weights, f"{name}.weight": torch.ones(())}, file)
    message = refusal(ValueError, load_meta, folder)
    assert_says(message, f"{name}.weight is [], expected")
    assert any(f"{name}.weight is []" in p for p in summarise(str(folder)).problems)


@pytest.mark.parametrize(
    "changes", [{"n_layers": 10**8}, {"n_layers": 10**9 + 1, "n_future_tokens": 10**9}]
)
def test_more_layers_than_tensors_are_refused_before_they_are_counted(release, changes):
    edit_params(release, **changes)
    fact = f"n_layers={changes['n_layers']} but the weights hold 57 tensors in all"
    assert_says(refusal(ValueError, load_meta, release), fact)
    assert any(fact in problem for problem in summarise(str(release)).problems)


def test_byte_order_mark_before_params_is_read(release):
    text = (release / "params.json").read_text()
    (release / "params.json").write_text(text, encoding="utf-8-sig")
    assert load_meta(release).n_future_tokens == 4


def test_no_tokenizer(release):
    for call, path in ((meta_tokenizer, release), (load_tokenizer, str(release))):
        assert_says(refusal(FileNotFoundError, call, path), "no tokenizer.model", str(release))


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '"x"', "\x00", pytest.param("[" * 100_000, id="deep")]
)
def test_malformed_params(release, text):
    (release / "params.json").write_text(text)
    assert_says(refusal(ValueError, load_meta, release), "params.json", "JSON")


def test_params_missing(release):
    (release / "params.json").unlink()
    for call, path in ((load_meta, release), (load_model, str(release))):
        assert_says(refusal(FileNotFoundError, call, path), "has no params.json")


def test_weights_missing(release):
    (release / "consolidated.pth").unlink()
    assert_says(refusal(FileNotFoundError, load_meta, release), "has no consolidated*.pth")


def test_unknown_keys_and_their_neighbours(release):
    edit_params(release, n_future_token=4, use_scaled_rope=True)
    message = refusal(ValueError, load_meta, release)
    assert_says(message, "n_future_token (near n_future_tokens)", "use_scaled_rope")


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"dim": "32"}, "dim='32', expected a positive integer"),
        ({"dim": 32.0}, "dim=32.0, expected a positive integer"),
        ({"n_layers": True}, "n_layers=True, expected a positive integer"),
        ({"n_future_tokens": 0}, "n_future_tokens=0, expected a positive integer"),
        ({"n_future_tokens": None}, "n_future_tokens=None, expected a positive integer"),
        ({"norm_eps": -1}, "norm_eps=-1, expected a positive number"),
        ({"rope_theta": float("nan")}, "rope_theta=nan, expected a positive number"),
        ({"dim": 10**400}, "expected a positive integer below 1e+12"),
        ({"ffn_dim_multiplier": 1e308}, "ffn_dim_multiplier=1e+308, expected a positive number"),
        ({"n_heads": 5}, "dim=32 with n_heads=5"),
        ({"n_kv_heads": 3}, "n_heads=4 with n_kv_heads=3"),
        ({"n_future_tokens": 6}, "n_layers=6 with n_future_tokens=6, expected more layers"),
    ],
)
def test_values_that_no_model_has(release, changes, fact):
    edit_params(release, **changes)
    assert_says(refusal(ValueError, load_meta, release), "params.json", fact)


def test_shard_missing_between(tmp_path):
    params = {**SMALL, "vocab_size": 64, "n_kv_heads": 4}
    folder = write(tmp_path / "m", params, random_weights(params), 4)
    (folder / "consolidated.01.pth").unlink()
    assert_says(refusal(FileNotFoundError, load_meta, folder), "no consolidated.01.pth")


def test_last_shard_missing(tmp_path):
    params = {**SMALL, "vocab_size": 64, "n_kv_heads": 4}
    folder = write(tmp_path / "m", params, random_weights(params), 4)
    (folder / "consolidated.03.pth").unlink()
    message = refusal(ValueError, load_meta, folder)
    assert_says(message, "only 3 of 4 shards", "consolidated.03.pth is missing", "wrong shape")
    assert "FFN width" not in message


def test_first_shard_alone(tmp_path):
    params = {**SMALL, "vocab_size": 64}
    folder = write(tmp_path / "m", params, random_weights(params), 2)
    (folder / "consolidated.01.pth").unlink()
    message = refusal(ValueError, load_meta, folder)
    assert_says(message, "only 1 of 2 shards", "consolidated.01.pth is missing")


def test_a_wrong_width_is_no_lost_shard(tmp_path):
    params = {**SMALL, "vocab_size": 64}
    folder = write(tmp_path / "m", params, random_weights(params), 2)
    edit_params(folder, dim=64)
    assert "shards" not in refusal(ValueError, load_meta, folder)


def test_shards_beside_a_whole_file(tmp_path):
    params = {**SMALL, "vocab_size": 64}
    folder = write(tmp_path / "m", params, random_weights(params), 2)
    torch.save({}, folder / "consolidated.pth")
    assert_says(refusal(ValueError, load_meta, folder), "consolidated.pth", "remove")


def test_shards_of_different_checkpoints(tmp_path):
    params = {**SMALL, "vocab_size": 64}
    folder = write(tmp_path / "m", params, random_weights(params, 0), 2)
    other = write(tmp_path / "o", params, random_weights(params, 1), 2)
    part = (other / "consolidated.01.pth").read_bytes()
    (folder / "consolidated.01.pth").write_bytes(part)
    assert_says(refusal(ValueError, load_meta, folder), "differs between the shards", "norm")
    weights = torch.load(folder / "consolidated.01.pth")
    del weights["norm.weight"]
    torch.save(weights, folder / "consolidated.01.pth")
    assert_says(refusal(ValueError, load_meta, folder), "different keys", "norm.weight")
    weights["norm.weight"], weights["output.weight"] = torch.ones(32), torch.zeros(31, 32)
    torch.save(weights, folder / "consolidated.01.pth")
    assert_says(refusal(ValueError, load_meta, folder), "output.weight", "in the shards")
