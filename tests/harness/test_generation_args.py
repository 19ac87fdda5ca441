"""Generation arguments of odd kinds: read as they are meant, or refused before anything runs."""

import pytest
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from mtp_harness.harness.generation_args import checked_arguments, room_for_prompt


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"until": None}, {"until": []}),
        ({}, {"until": []}),
        ({"until": "a"}, {"until": ["a"]}),
        ({"max_gen_toks": "100"}, {"until": [], "max_gen_toks": 100}),
        ({"max_new_tokens": "2e1"}, {"until": [], "max_new_tokens": 20}),
        ({"max_gen_toks": 1e2, "top_k": "5"}, {"until": [], "max_gen_toks": 100, "top_k": 5}),
        ({"temperature": "0.5", "top_p": "1"}, {"until": [], "temperature": 0.5, "top_p": 1.0}),
        ({"temperature": None, "top_k": None, "do_sample": None}, {"until": []}),
        ({"num_beams": 3}, {"until": [], "num_beams": 3}),  # the model's own to judge
    ],
)
def test_arguments_are_read_as_they_are_meant(given, meant):
    checked = checked_arguments(given)
    assert checked == meant
    assert {type(value) for value in checked.values()} == {type(v) for v in meant.values()}
    normalize_gen_kwargs(checked, 8)  # the harness takes them
    handle_stop_sequences(checked["until"], eos=None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("until", [10, 1.5, True, [None], [10], {"a": 1}, ("a",)]),
        ("max_gen_toks", [[], [""], {}, "", "abc", 1.5, True, float("nan"), float("inf"), 10**400]),
        ("max_tokens", ["abc"]),
        ("top_k", ["", "abc", 1.5, [3], True]),
        ("temperature", [[], {}, "", "abc", True, float("nan"), float("inf"), 10**400]),
        ("top_p", [[0.5], "abc"]),
        ("min_p", ["x"]),
        ("do_sample", ["yes", 1, [], "true"]),
    ],
)
def test_odd_values_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}=.*, expected .*\\.$") as caught:
            checked_arguments({name: value})
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_budget_leaves_room_for_a_prompt():
    assert room_for_prompt(24, 64, "t") == 40
    for budget in (64, 65, 0, -1):
        with pytest.raises(ValueError, match=f"^t: max_gen_toks={budget}"):
            room_for_prompt(budget, 64, "t")
