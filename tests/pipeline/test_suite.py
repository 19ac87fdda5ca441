import math

import pytest

from mtp_harness.pipeline.suite import make_suite, merged, read_suite

GOOD = {
    "models": [{"label": "n4", "model_args": {"pretrained": "mtp-bytes-n4"}}, {"label": "other"}],
    "tasks": ["humaneval_mtp", {"task": "mbpp_mtp", "limit": 3, "metadata": {"b": 2}}],
    "settings": {"limit": 9, "batch_size": "auto", "metadata": {"a": 1, "b": 1}},
}


def test_a_task_s_settings_win_over_the_suite_s():
    suite = make_suite(GOOD, "mine", "mine.yaml")
    assert [model.label for model in suite.models] == ["n4", "other"]
    first, second = suite.tasks
    assert first.settings == GOOD["settings"]
    assert second.settings == {"limit": 3, "batch_size": "auto", "metadata": {"a": 1, "b": 2}}
    assert str(suite.output) == "mine"


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("limit", "2e1", 20),
        ("limit", "0.5", 0.5),
        ("batch_size", "16", 16),
        ("max_batch_size", "8", 8),
        ("num_fewshot", "3", 3),
        ("seed", "7", 7),
        ("seed", ["1", "2", 3, "4"], [1, 2, 3, 4]),
    ],
)
def test_numbers_that_yaml_gives_as_text_are_numbers(name, text, number):
    suite = make_suite({**GOOD, "settings": {name: text}, "tasks": ["a"]}, "mine", "mine.yaml")
    found = suite.tasks[0].settings[name]
    assert found == number and type(found) is type(number)


def test_merging_changes_neither_side():
    one, two = {"metadata": {"a": 1}}, {"metadata": {"b": 2}}
    assert merged(one, two) == {"metadata": {"a": 1, "b": 2}}
    assert (one, two) == ({"metadata": {"a": 1}}, {"metadata": {"b": 2}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": []}, r"unknown key modles; did you mean models\?"),
        ({"models": []}, r"models is \[\], expected a list of at least one"),
        ({"tasks": []}, r"tasks is \[\], expected a list of at least one"),
        ({"tasks": "humaneval_mtp"}, r"tasks is 'humaneval_mtp', expected a list"),
        ({"models": [{"label": "a"}, {"label": "a"}]}, r"two models are labelled a"),
        ({"models": [{"model_args": {}}]}, r"models\[0\] lacks label"),
        ({"models": [{"label": "a/b"}]}, r"label 'a/b' names a folder"),
        ({"models": [{"label": ".."}]}, r"label '..' names a folder"),
        ({"models": [{"label": "a", "model_args": "x=1"}]}, r"model_args is 'x=1'"),
        ({"models": [{"label": "a", "model_args": {"journal": "f"}}]}, r"has journal, which the"),
        ({"tasks": [{"limit": 3}]}, r"tasks\[0\] lacks task"),
        ({"tasks": [{"task": "x", "limt": 3}]}, r"unknown key limt; did you mean limit\?"),
        ({"tasks": [{"task": "x", "limit": 0}]}, r"limit=0, expected a whole number from 1"),
        ({"settings": {"limit": math.inf}}, r"limit=inf, expected a whole number from 1"),
        ({"settings": {"limit": 2.5}}, r"limit=2.5, expected a whole number from 1, or a share"),
        ({"settings": {"batch_size": True}}, r"batch_size=True"),
        ({"settings": {"seed": [1, 2]}}, r"seed=\[1, 2\], expected a whole number, or four"),
        ({"settings": {"num_fewshot": -1}}, r"num_fewshot=-1"),
        ({"settings": {"num_fewshot": "many"}}, r"num_fewshot='many'"),
        ({"settings": {"limit": "all"}}, r"limit='all', expected a whole number from 1"),
        ({"settings": {"limit": "nan"}}, r"limit='nan', expected a whole number from 1"),
        ({"settings": {"metadata": "x"}}, r"metadata='x', expected names and values"),
        ({"settings": []}, None),  # nothing said
        ({"output": 3}, r"output=3, expected a folder"),
    ],
)
def test_a_bad_suite_gets_one_sentence(changes, message):
    if message is None:
        make_suite({**GOOD, **changes}, "mine", "mine.yaml")
        return
    with pytest.raises(ValueError, match=message) as caught:
        make_suite({**GOOD, **changes}, "mine", "mine.yaml")
    assert str(caught.value).startswith("mine.yaml") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["models: [", "- a\n- b\n", ""])
def test_a_file_that_is_no_suite(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"suite\.yaml (is|has)") as caught:
        read_suite(path)
    assert "\n" not in str(caught.value)
