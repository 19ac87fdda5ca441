import pytest

from mtp_harness.scoring.samples import generation_of, temperature_of

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
