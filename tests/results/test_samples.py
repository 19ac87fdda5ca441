import json

import pytest

from mtp_harness.results.samples import generation_of, read, temperature_of

GREEDY = {"until": ["\n"], "do_sample": False, "temperature": 0.7}


@pytest.mark.parametrize(
    "arguments",
    [{"gen_args_0": {"arg_0": "prompt", "arg_1": GREEDY}}, [["prompt", GREEDY]]],
    ids=["lm_eval's own file", "a gallery's"],
)
def test_generation_arguments_are_found_in_both_forms(arguments):
    assert generation_of({"arguments": arguments}) == GREEDY
    assert temperature_of({"arguments": arguments}) == 0


def test_sampled_answers_have_a_temperature():
    asked = GREEDY | {"do_sample": True}
    assert temperature_of({"arguments": [["prompt", asked]]}) == 0.7


@pytest.mark.parametrize("arguments", [{"gen_args_0": {"arg_0": "a", "arg_1": "b"}}, [["a"]], []])
def test_what_generates_nothing_has_no_temperature(arguments):
    assert generation_of({"arguments": arguments}) is None
    with pytest.raises(ValueError, match="document 3 holds no generation, expected"):
        temperature_of({"doc_id": 3, "arguments": arguments})


@pytest.mark.parametrize(
    "line",
    ["3", "[]", '{"n_answers": "x"}', '{"n_answers": [{"verdict": 3}]}']
    + ['{"n_answers": [{"decode": [1]}]}', '{"n_answers": [3]}', "{", "[" * 100_000],
)
def test_a_line_that_is_no_sample_is_named(tmp_path, line):
    path = tmp_path / "samples_a_2026-01-01T00-00-00.jsonl"
    path.write_text('{"n_answers": [{"verdict": {}, "decode": null}]}\n' + line + "\n")
    samples = read(path)
    assert next(samples)
    with pytest.raises(ValueError, match=rf"{path.name}:2 is no"):
        next(samples)


@pytest.mark.parametrize(
    "told",
    [
        2,  # what the harness pools
        [{"verdict": {"outcome": "pass"}, "decode": None}],  # programs
        [{"decode": {"n_verified": [3], "n_kept": 4, "n_characters": [1] * 4}}],  # summaries
        {"operations": 1, "expression": "(X) + (1)", "right": 0},  # arithmetic
    ],
)
def test_what_tasks_say_of_their_answers_is_read(tmp_path, told):
    path = tmp_path / "samples_a_2026-01-01T00-00-00.jsonl"
    path.write_text(json.dumps({"doc_id": 0, "arguments": [], "n_answers": told}) + "\n")
    assert next(read(path))["n_answers"] == told
