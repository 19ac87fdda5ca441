"""What stands side by side in a figure was asked alike, and all of it is among its sources."""

import json

import pytest

from mtp_harness.figures.catalogue import FIGURES
from mtp_harness.figures.figure import draw
from mtp_harness.results.tidy import read_runs

from ..figures.runs import table, write_run

SUMMARIES = ("cnn_dailymail_mtp", "xsum_mtp")


def edited(path, **changes):
    """Change top-level entries of a results file, given by task."""
    content = json.loads(path.read_text())
    for name, by_task in changes.items():
        content[name.replace("_", "-") if name == "n_shot" else name] = by_task
    path.write_text(json.dumps(content))


def solved(folder, label, n, score=0.5, **told):
    return write_run(
        folder, label, n, metrics={"humaneval_mtp": {"pass@1": score}}, parameters=100, **told
    )


def summarised(folder, label, n, scores=(0.2, 0.4), **told):
    metrics = {task: {"rougeL_f1": score} for task, score in zip(SUMMARIES, scores, strict=True)}
    return write_run(folder, label, n, metrics=metrics, parameters=100, **told)


@pytest.mark.parametrize(
    "change", [{"n_shot": {"humaneval_mtp": 5}}, {"versions": {"humaneval_mtp": 9}}]
)
def test_runs_that_were_asked_in_another_way_are_no_pair(tmp_path, change):
    solved(tmp_path / "a", "one", 1)
    edited(solved(tmp_path / "b", "four", 4), **change)
    results = read_runs([tmp_path])
    assert not results.problems
    for name in ("fig_1", "fig_3", "table_1"):
        with pytest.raises(ValueError, match="runs of humaneval_mtp cannot be compared"):
            draw(FIGURES[name], results)


def generating(folder, label, n, metric="pass@1", **kwargs):
    metrics = {"humaneval_mtp": {metric: 0.5}}
    return write_run(folder, label, n, metrics=metrics, generation={"until": [], **kwargs})


def test_what_changes_nothing_is_no_other_way(tmp_path):
    # Greedy answers know no top-p, sampled ones replace them, and 1 is 1.0.
    told = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}
    for n, version, greedy in ((1, 1, {"top_p": 1.0}), (4, 1.0, {})):
        for folder in ("greedy", "both"):
            path = generating(tmp_path / folder, f"n{n}", n, **greedy)
            edited(path, versions={"humaneval_mtp": version})
        generating(tmp_path / "both", f"n{n}", n, "pass@1_sampled", **told)
    for folder, temperature in (("greedy", 0), ("both", 0.8)):
        shown = draw(FIGURES["table_s7"], read_runs([tmp_path / folder])).table
        assert shown["temperature"].tolist() == [temperature] * 2


def test_the_refusal_names_what_differs(tmp_path):
    generating(tmp_path, "n1", 1, max_gen_toks=256)
    generating(tmp_path, "n4", 4, max_gen_toks=512)
    with pytest.raises(ValueError, match="budget 256 against 512"):
        draw(FIGURES["table_1"], read_runs([tmp_path]))


def probed(folder, label, **metadata):
    rows = table("data_set offset", [["code", 1, "accuracy", 0.5]])
    path = write_run(folder, label, 4, tables={"mtp_heads": {"by_offset": rows}})
    content = json.loads(path.read_text())
    content["configs"]["mtp_heads"]["metadata"] = metadata
    path.write_text(json.dumps(content))


def test_options_of_other_tasks_and_places_are_no_other_way(tmp_path):
    probed(tmp_path, "a", quick=True, baseline="mtp-bytes-n1", stories="/a/stories")
    probed(tmp_path, "b", quick=True, stories="/b/stories")
    draw(FIGURES["fig_heads"], read_runs([tmp_path]))
    probed(tmp_path, "c", window=512)
    with pytest.raises(ValueError, match="mtp_heads cannot be compared .*window=512"):
        draw(FIGURES["fig_heads"], read_runs([tmp_path]))


def chosen(folder, label, n, tasks, shots=0, score=0.5, **told):
    metrics = {
        task: {("exact_match" if task in ("nq_open", "triviaqa") else "acc_norm"): score}
        for task in tasks
    }
    for task in ("copa", "social_iqa"):
        if task in metrics:
            metrics[task] = {"acc": score}
    path = write_run(folder, label, n, metrics=metrics, train_step=100, **told)
    edited(path, n_shot=dict.fromkeys(tasks, shots))
    return path


SEVEN = "arc_challenge copa hellaswag nq_open piqa social_iqa triviaqa".split()


def test_the_mean_of_choice_tasks_is_of_one_kind_of_runs(tmp_path):
    # In two files, on two machines: accuracies do not depend on them.
    chosen(tmp_path / "a", "one", 1, SEVEN[:3], hardware={"cpu": "a processor", "threads": 1})
    last = chosen(tmp_path / "b", "one", 1, SEVEN[3:], hardware={"cpu": "a processor"})
    before = draw(FIGURES["fig_5"], read_runs([tmp_path]))
    assert before.table["value"].tolist() == [0.5]
    edited(last, note="another file")
    assert draw(FIGURES["fig_5"], read_runs([tmp_path])).sources != before.sources
    chosen(tmp_path / "c", "four", 4, SEVEN, shots=5)
    with pytest.raises(ValueError, match="cannot be compared"):
        draw(FIGURES["fig_5"], read_runs([tmp_path]))


def test_one_model_asked_in_two_ways_did_not_measure_the_same(tmp_path):
    solved(tmp_path / "a", "four", 4)
    edited(solved(tmp_path / "b", "four", 4), n_shot={"humaneval_mtp": 5})
    assert read_runs([tmp_path]).problems == []
    with pytest.raises(ValueError, match="cannot be compared"):
        draw(FIGURES["table_1"], read_runs([tmp_path]))


def test_means_are_not_of_other_documents(tmp_path):
    for name, n, read in (("a", 1, 40), ("b", 4, 40), ("b", 4, 5)):
        counts = {task: {"effective": read, "original": 40} for task in SUMMARIES}
        edited(summarised(tmp_path / name, name, n), **{"n-samples": counts})
        if (name, read) == ("b", 40):
            draw(FIGURES["fig_6"], read_runs([tmp_path]))
    for path in sorted((tmp_path / "b").iterdir())[:-1]:
        path.unlink()
    with pytest.raises(ValueError, match="cnn_dailymail_mtp cannot be compared .*documents"):
        draw(FIGURES["fig_6"], read_runs([tmp_path]))


def test_summaries_at_several_temperatures_are_refused(tmp_path):
    for t in (0.2, 0.8):
        kwargs = {"do_sample": True, "temperature": t, "until": []}
        summarised(tmp_path / str(t), "four", 4, generation=kwargs)
    with pytest.raises(ValueError, match="four summarised cnn_dailymail at several temper"):
        draw(FIGURES["table_s9"], read_runs([tmp_path]))


def test_every_file_behind_a_number_is_among_its_sources(tmp_path):
    base = solved(tmp_path / "a", "one", 1)
    solved(tmp_path / "b", "four", 4)
    solved(tmp_path / "c", "two", 2)
    before = draw(FIGURES["fig_3"], read_runs([tmp_path])).sources
    edited(base, note="the same numbers in another file")
    assert draw(FIGURES["fig_3"], read_runs([tmp_path])).sources != before

    for task, score in zip(SUMMARIES, (0.2, 0.4), strict=True):
        write_run(tmp_path / task, "one", 1, metrics={task: {"rougeL_f1": score}})
        write_run(tmp_path / "d" / task, "four", 4, metrics={task: {"rougeL_f1": score}})
    before = {n: draw(FIGURES[n], read_runs([tmp_path])).sources for n in ("fig_6", "table_s9")}
    (last,) = (tmp_path / SUMMARIES[1]).iterdir()
    edited(last, note="another file, too")
    for name, old in before.items():
        assert draw(FIGURES[name], read_runs([tmp_path])).sources != old


def test_what_two_machines_measured_stands_whole_for_each(tmp_path):
    rows = [
        ["code", k, metric, value * k]
        for k in (1, 4)
        for metric, value in (("tokens_per_second", 10), ("tokens_per_forward", 0.9))
    ]
    cells = [["self", 16, 512, k, "speedup", k / 2] for k in (1, 4)]
    tables = {
        "mtp_speculative": {"by_k": table("category k", rows)},
        "mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells)},
    }
    for name, threads in (("a", 1), ("b", 32)):
        hardware = {"cpu": "a processor", "threads": threads}
        write_run(tmp_path / name, "four", 4, tables=tables, hardware=hardware)
    shown = draw(FIGURES["table_s2"], read_runs([tmp_path])).table
    assert shown.groupby(["label", "metric"]).size().to_dict() == {
        (f"four, a processor, {said}", metric): 2
        for said in ("1 thread", "32 threads")
        for metric in ("speedup", "tokens_per_forward")
    }
