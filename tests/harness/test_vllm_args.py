"""Model arguments of `mtp-vllm`: read, and refused by name before vLLM is asked for anything."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from mtp_harness.errors import UserError
from mtp_harness.harness.vllm_args import (
    Speculation,
    in_a_sentence,
    modules_of,
    refuse_foreign,
    require_folders,
    speculation,
)
from mtp_harness.models.load import SHIPPED_DRAFTERS

EAGLE = {"method": "eagle3", "drafter": "d"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"acceptance": "all"}, "acceptance=all does not work .* vLLM verifies every draft"),
        ({"draft_threshold": 0.5}, "draft_threshold=0.5 does not work .* leave it out"),
        ({"draft_heads": "auto"}, "draft_heads=auto does not work .* give a number"),
        ({"loader": "m:f"}, "loader=m:f does not work .* use --model mtp"),
        ({"speculative_config": {}}, "speculative_config={} does not work .* draft_heads, method"),
    ],
)
def test_arguments_of_our_own_engine_are_refused_by_name(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        refuse_foreign({"pretrained": "m", **given})


def test_what_says_the_default_is_harmless():
    refuse_foreign({"acceptance": "exact", "draft_threshold": 0, "draft_heads": 3})


@pytest.mark.parametrize(
    ("own", "modules", "expected"),
    [
        ({}, 0, (1, "", None)),
        ({}, None, (1, "", None)),
        ({"draft_heads": 1, "method": "mtp"}, 0, (1, "", None)),
        ({"draft_heads": 1, **EAGLE}, 1, (1, "", None)),
        ({}, 1, (4, "mtp", {"method": "mtp", "num_speculative_tokens": 3})),
        ({}, 3, (4, "mtp", {"method": "mtp", "num_speculative_tokens": 3})),
        ({"draft_heads": "2"}, 1, (2, "mtp", {"method": "mtp", "num_speculative_tokens": 1})),
        # A configuration may not say how many modules there are: vLLM knows.
        ({"draft_heads": 2, "method": "mtp"}, None, (2, "mtp", {"method": "mtp"})),
        ({"method": "mtp"}, None, (4, "mtp", {"method": "mtp"})),
        ({"draft_heads": 3, **EAGLE}, 0, (3, "eagle3", {"method": "eagle3", "model": "d"})),
        ({"draft_heads": 5, "method": "ngram"}, 0, (5, "ngram", {"method": "ngram"})),
    ],
)
def test_k_heads_draft_k_less_1_tokens(own, modules, expected):
    k, method, config = expected
    if config is not None:
        config = {**config, "num_speculative_tokens": k - 1}
    assert speculation(own, "m", modules) == Speculation(k, method, config)


def test_a_shipped_drafter_is_a_folder_for_vllm():
    name = SHIPPED_DRAFTERS[0]
    config = speculation({"method": "eagle3", "drafter": name, "draft_heads": 2}, "m", 0).config
    assert config["model"].endswith(f"/{name}") and Path(config["model"]).is_dir()


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"draft_heads": 2}, "configuration of m promises no MTP module, expected one: use draft"),
        ({"method": "mtp"}, "method=mtp, but the configuration of m promises no MTP module"),
        ({"method": "mtp", "draft_heads": 3}, "promises no MTP module, expected one: use draft_he"),
        ({"draft_heads": 0}, "draft_heads=0, expected a whole number from 1"),
        ({"draft_heads": 130, "method": "ngram"}, "draft_heads=130, expected at most 129: vLLM"),
        ({"method": "mpt"}, "method=mpt, expected mtp, eagle, eagle3, medusa, ngram"),
        ({"drafter": "d"}, "drafter=d with method=None, expected method=eagle, eagle3 or medusa"),
        ({"method": "medusa"}, "method=medusa without drafter=, expected a folder or name"),
    ],
)
def test_arguments_that_do_not_fit_together_are_one_sentence(own, sentence):
    with pytest.raises(ValueError, match=sentence):
        speculation(own, "m", 0)


def test_a_method_is_named_for_modules_that_a_configuration_does_not_count():
    with pytest.raises(ValueError, match="does not give a number .*, method=mtp if vLLM reads"):
        speculation({"draft_heads": 2}, "m", None)


@pytest.mark.parametrize("name", ["drafter", "lora_local_path"])
def test_a_folder_that_is_missing_is_missed_before_the_start(tmp_path, name):
    for harmless in (None, str(tmp_path), "owner/adapter", SHIPPED_DRAFTERS[0]):
        require_folders({name: harmless})
    require_folders({})
    with pytest.raises(FileNotFoundError, match=f"{name}=./no is not a folder, expected one: che"):
        require_folders({name: "./no"})


def test_modules_are_counted_in_the_configuration(tmp_path):
    for content, modules in (({"num_nextn_predict_layers": 0}, 0), ({"a": 1}, None)):
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert modules_of(str(tmp_path), None) == modules
    with pytest.raises(FileNotFoundError, match="no does not exist, expected the folder of a chec"):
        modules_of(str(tmp_path / "no"), None)


def test_an_error_of_vllm_is_one_line():
    error = ValueError(
        "1 validation error for SpeculativeConfig\n  Value error, num_speculative_tokens:3 must be "
        "divisible by n_predict=2. [type=value_error, input_value=ArgsKwargs(...)]\n    For further"
    )
    assert in_a_sentence(error) == "num_speculative_tokens:3 must be divisible by n_predict=2"
    error = ValueError(
        "1 validation error for CacheConfig\ngpu_memory_utilization\n  Input should be above 0 "
        "[type=greater_than, input_value={'a': [1]}, input_type=dict]\n    For further information "
        "visit https://errors.example/greater_than"
    )
    assert in_a_sentence(error) == "gpu_memory_utilization Input should be above 0"
    assert in_a_sentence(RuntimeError("no\n memory.")) == "no memory"
    unknown = ValueError(f"OddForCausalLM is unknown. There are {['AForCausalLM'] * 99}")
    assert in_a_sentence(unknown) == "OddForCausalLM is unknown"
    assert in_a_sentence(ValueError("x" * 900)) == "x" * 400 + "…"
    assert in_a_sentence(AssertionError()) == "AssertionError"


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_model_s_name_is_one_sentence():
    with pytest.raises(UserError, match=r"needs vLLM, .* install mtp-harness\[vllm\], or use"):
        import mtp_harness.vllm  # noqa: F401
