"""Groups are expanded as the harness itself expands them."""

import pytest
from lm_eval.tasks import TaskManager

from mtp_harness import tasks_dir
from mtp_harness.pipeline.expand import expand
from mtp_harness.pipeline.suite import Asked

from ..data.code_fixtures import write_all


def names(*asked, **kwargs):
    return [task.name for task in expand(tuple(Asked(one, {}) for one in asked), **kwargs)]


def leaf(name, **more):
    lines = "".join(f"{key}: {value}\n" for key, value in more.items())
    return f"task: {name}\ndataset_path: json\noutput_type: generate_until\n{lines}"


@pytest.fixture
def mine(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yaml").write_text(leaf(name, tag="[mine_tag]"))
    (tmp_path / "inner.yaml").write_text(
        "group: inner\ntask:\n  - one\n  - task: two\n    num_fewshot: 3\n    metadata: {a: 1}\n"
    )
    (tmp_path / "outer.yaml").write_text(
        "group: outer\ntask:\n  - inner\n  - group: on_the_spot\n    task: [three]\n"
    )
    return str(tmp_path)


@pytest.mark.parametrize("group", ["mtp_code", "mtp_paper_code"])
def test_a_group_is_what_the_harness_makes_of_it(group, monkeypatch, tmp_path):
    monkeypatch.setenv("MTP_HARNESS_DATA", str(write_all(tmp_path)))
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    assert names(group) == list(manager.load([group])["tasks"])


def test_groups_in_groups_and_what_they_say_of_their_members(mine):
    tasks = expand((Asked("outer", {"limit": 2, "metadata": {"b": 2}}),), mine)
    assert [task.name for task in tasks] == ["one", "two", "three"]
    assert tasks[0].settings == {"limit": 2, "metadata": {"b": 2}}
    assert tasks[1].settings == {"limit": 2, "num_fewshot": 3, "metadata": {"a": 1, "b": 2}}
    assert tasks[1].metadata() == {"a": 1, "b": 2}


def test_a_tag_has_all_its_tasks(mine):
    assert names("mine_tag", include_path=mine) == ["one", "three", "two"]


def test_a_task_in_two_groups_runs_once(mine):
    assert names("one", "three", "mine_tag", include_path=mine) == ["one", "three", "two"]


def test_one_task_with_two_settings_is_refused(mine):
    asked = (Asked("one", {"limit": 2}), Asked("one", {"limit": 3}))
    with pytest.raises(ValueError, match=r"one is asked for twice, with limit=2 and with limit=3"):
        expand(asked, mine)


def test_a_group_that_says_what_no_flag_says(mine, tmp_path):
    (tmp_path / "odd.yaml").write_text("group: odd\ntask:\n  - task: one\n    repeats: 4\n")
    with pytest.raises(ValueError, match=r"the group odd sets repeats for one"):
        names("odd", include_path=mine)


def test_a_group_within_itself(mine, tmp_path):
    (tmp_path / "round.yaml").write_text("group: round\ntask: [one, round]\n")
    with pytest.raises(ValueError, match=r"the group round holds itself, by round"):
        names("round", include_path=mine)


def test_unknown_names_and_folders(mine):
    with pytest.raises(ValueError, match=r"no task, tag or group humanevl_mtp; did you mean hum"):
        names("humanevl_mtp")
    with pytest.raises(ValueError, match=r"include_path=nowhere is not a folder"):
        names("one", include_path="nowhere")


def test_stock_tasks_are_found():
    assert names("copa", "humaneval_mtp") == ["copa", "humaneval_mtp"]


def test_an_option_of_all_goes_to_the_tasks_that_have_it():
    of_all = {"metadata": {"quick": True, "trials": 2}}
    own = {"mtp_heads": {}, "mtp_speed": {}, "docstring_mtp": {"limit": 2}}
    asked = tuple(Asked(name, of_all | settings) for name, settings in own.items())
    settings = {task.name: task.settings for task in expand(asked)}
    assert settings == {
        "mtp_heads": {"metadata": {"quick": True}},
        "mtp_speed": {"metadata": {"quick": True, "trials": 2}},
        "docstring_mtp": {"limit": 2},
    }


def test_an_option_of_no_task_is_refused():
    with pytest.raises(
        ValueError, match="trails is not an option of mtp_speed: did you mean trials"
    ):
        expand((Asked("mtp_speed", {"metadata": {"trails": 2}}),))
