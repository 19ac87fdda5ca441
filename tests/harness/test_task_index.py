"""The one walk from a name to single tasks: groups, tags, settings on the way, unknown names."""

import pytest

from mtp_harness import tasks_dir
from mtp_harness.harness.task_index import configuration, is_ours, leaves, our_index

YAMLS = {
    "plain": "task: t_plain\ntag: t_tag\noutput_type: generate_until\n",
    "other": "include: plain.yaml\ntask: t_other\n",
    "group": "group: t_group\nnum_fewshot: 2\ntask:\n- t_plain\n- task: t_other\n  limit: 3\n",
    "outer": "group: t_outer\ntask:\n  - group: within\n    task: [t_group]\n  - t_absent\n",
    "circle": "group: t_circle\ntask: [t_wheel]\n",
    "wheel": "group: t_wheel\ntask: [t_circle, t_plain]\n",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in YAMLS.items():
        (folder / f"{name}.yaml").write_text(text)
    return our_index(folder)


def test_a_task_a_tag_and_a_group_end_at_single_tasks(index):
    assert [leaf.name for leaf in leaves("t_plain", index)] == ["t_plain"]
    assert [leaf.name for leaf in leaves("t_tag", index)] == ["t_other", "t_plain"]
    assert [leaf.name for leaf in leaves("t_group", index)] == ["t_plain", "t_other"]


def test_what_groups_say_on_the_way_stands_in_order(index):
    plain, other = leaves("t_group", index)
    assert [tuple(said) for said in plain.said] == [("t_group", "t_group", {"num_fewshot": 2})]
    assert [tuple(said) for said in other.said[1:]] == [("t_group", "t_other", {"limit": 3})]
    assert plain.above == ("t_group",)


def test_a_group_defined_on_the_spot_is_walked_and_an_unknown_name_has_no_entry(index):
    found = list(leaves("t_outer", index))
    assert [leaf.name for leaf in found] == ["t_plain", "t_other", "t_absent"]
    assert found[-1].entry is None and found[0].above == ("t_outer", "t_group")
    (alone,) = leaves({"task": "t_plain", "repeats": 2}, index)
    assert alone.said[0].settings == {"repeats": 2}


def test_a_group_that_holds_itself_is_the_end_of_the_walk(index):
    circle, plain = leaves("t_circle", index)
    assert circle.name in circle.above and plain.name not in plain.above


def test_ours_are_told_from_others(index):
    assert is_ours(index["mtp_heads"].yaml_path) and not is_ours(index["t_plain"].yaml_path)
    assert not is_ours(None) and tasks_dir().is_dir()
    assert configuration(index["mtp_positions"])["task"] == "mtp_positions"
