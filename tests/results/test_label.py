"""One model has one name, whoever reads its results."""

import pytest

from mtp_harness.results.label import Model, labels_of, model_of, model_of_folder


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ({"model_name": "/ckpt/run1/7B"}, "7B"),
        ({"model_name": "/ckpt/run1/7B/"}, "7B"),
        ({"model_name": "org/model"}, "model"),
        ({"model_name": "/ckpt/7B", "config": {"mtp": {"label": " my\n model "}}}, "my model"),
        ({"model_name": "/ckpt/7B", "config": {"mtp": {"label": " "}}}, "7B"),
        ({"config": {"mtp": {"pretrained": "/ckpt/run1/7B"}}}, "7B"),
        ({"model_name": "half \ud800"}, "half ?"),
        ({"model_name": "/ckpt/7B", "config": {"mtp": {"drafter": "/d/tuned/"}}}, "7B + tuned"),
        ({"model_name": None}, "model"),
        ({}, "model"),
    ],
)
def test_a_label_is_given_or_the_last_part_of_the_name(content, label):
    model = model_of({"config": {}} | content)
    assert labels_of([model]) == {model: label}


def test_folders_of_the_harness_are_read_back():
    folder = model_of_folder("__ckpt__run1__7B")
    assert labels_of([folder])[folder] == "7B"
    other = Model("", "/ckpt/run2/7B")
    assert labels_of([folder, other]) == {folder: "run1/7B", other: "run2/7B"}


@pytest.mark.parametrize(
    "labels",
    [
        {"/a/x/7B": "x/7B", "/b/y/7B": "y/7B", "/b/y/13B": "13B"},
        {"/a/x/7B": "a/x/7B", "/b/x/7B": "b/x/7B", "/c/y/7B": "y/7B"},
        {"7B": "7B", "org/7B": "org/7B"},
    ],
)
def test_as_many_parts_as_tell_two_models_apart(labels):
    found = labels_of(Model("", name) for name in labels)
    assert {model.name: label for model, label in found.items()} == labels


def test_one_trunk_with_several_drafters_is_several_models():
    own, a, b = (Model("", "/ckpt/7B", drafter) for drafter in ("", "/a/mtp.sf", "/b/mtp.sf"))
    assert labels_of([own, a, b]) == {own: "7B", a: "7B + a/mtp.sf", b: "7B + b/mtp.sf"}
    assert labels_of([own, a]) == {own: "7B", a: "7B + mtp.sf"}


def test_a_given_label_stays_and_another_model_makes_room():
    given, same, other = Model("7B", "/a/x/7B"), Model("", "/a/x/7B"), Model("", "/b/y/7B")
    assert labels_of([given, other]) == {given: "7B", other: "y/7B"}
    assert labels_of([given, same]) == {given: "7B", same: "7B"}  # one model, labelled once
    steps = [Model("run", f"/ckpt/{step}") for step in (100, 200)]
    assert set(labels_of(steps).values()) == {"run"}  # checkpoints of one model, as the user says


def test_a_run_of_another_engine_is_another_model_and_says_so():
    """With the same name or label, its rows would be merged with ours."""
    for named in ({"model_name": "/a/7B"}, {"config": {"mtp": {"label": "7B"}}}):
        mtp = named.get("config", {}).get("mtp", {})
        ours = model_of({"config": {"mtp": mtp}} | named)
        its = model_of({**named, "config": {"mtp": {**mtp, "engine": {"name": "vllm"}}}})
        assert labels_of([ours, its]) == {ours: "7B", its: "7B (vllm)"}
