"""pass@k over temperatures and gains over n = 1, against plain loops over the documents."""

import json
import random
import statistics

import pandas as pd
import pytest

from mtp_harness.figures import training_figures
from mtp_harness.figures.scored import at_best_temperature, cells, gains
from mtp_harness.figures.summary_figures import l_f1, rouge_l
from mtp_harness.results.tidy import read_runs

from .runs import table, write_run

TASK = "humaneval_mtp"
SAMPLED = {"do_sample": True, "until": []}


def write_scores(folder, label, n, scores, temperature=None, k=None, **told):
    """A run with the scores of each document, greedy without a temperature."""
    name = "pass@1" if temperature is None else "pass@1_sampled"
    kwargs = {"do_sample": False, "until": []}
    if temperature is not None:
        kwargs = SAMPLED | {"temperature": temperature}
    return write_run(
        folder,
        label,
        n,
        k,
        metrics={TASK: {name: statistics.mean(scores)}},
        samples={TASK: [{name: score} for score in scores]},
        generation=kwargs,
        **told,
    )


def plain_bootstrap(pairs, replicates=2000, seed=1):
    """The 90 % interval of the mean difference, document by document."""
    drawn = random.Random(seed)
    means = sorted(statistics.mean(drawn.choices(pairs, k=len(pairs))) for _ in range(replicates))
    return means[int(0.05 * replicates)], means[int(0.95 * replicates)]


def test_gain_is_paired_and_its_interval_is_a_bootstrap_over_documents(tmp_path):
    drawn = random.Random(0)
    base = [drawn.random() for _ in range(60)]
    better = [min(1.0, score + drawn.choice((0.0, 0.2))) for score in base]
    write_scores(tmp_path, "base", 1, base)
    write_scores(tmp_path, "heads", 4, better)
    (row,) = gains(read_runs([tmp_path]), (TASK,)).to_dict("records")
    differences = [a - b for a, b in zip(better, base, strict=True)]
    assert row["value"] == pytest.approx(statistics.mean(differences))
    assert row["baseline_value"] == pytest.approx(statistics.mean(base))
    low, high = plain_bootstrap(differences)
    assert row["low"] == pytest.approx(low, abs=0.006)
    assert row["high"] == pytest.approx(high, abs=0.006)
    # Unpaired, the interval would be several times as wide.
    assert high - low < 0.3 * 2 * 1.64 * statistics.stdev(base) / 60**0.5 * 2


def test_best_temperature_is_chosen_for_each_cell(tmp_path):
    cold, hot = [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    write_scores(tmp_path, "a", 4, cold, 0.2)
    write_scores(tmp_path, "a", 4, hot, 0.8)
    (row,) = at_best_temperature(read_runs([tmp_path]), (TASK,)).to_dict("records")
    assert (row["temperature"], row["value"], row["count"]) == (0.8, 0.5, 4)


def write_temperatures(folder, label, n, by_temperature):
    """One run of a task at several temperatures, as the groups of the paper's tasks do it."""
    scores = {f"{TASK}_t{t}": values for t, values in by_temperature.items()}
    path = write_run(
        folder,
        label,
        n,
        metrics={task: {"pass@1_sampled": statistics.mean(own)} for task, own in scores.items()},
        samples={task: [{"pass@1_sampled": one} for one in own] for task, own in scores.items()},
    )
    content = json.loads(path.read_text())
    for t in by_temperature:
        kwargs = SAMPLED | {"temperature": t}
        content["configs"][f"{TASK}_t{t}"]["generation_kwargs"] = kwargs
    path.write_text(json.dumps(content))


def test_temperatures_in_one_file_are_those_in_several(tmp_path):
    runs = {1: {0.2: [0.25, 0.0, 0.0, 0.25], 0.8: [1.0, 0.5, 0.0, 0.5]}}
    runs[4] = {0.2: [0.0, 0.0, 0.0, 0.25], 0.8: [1.0, 0.0, 0.0, 0.5]}
    for n, by_temperature in runs.items():
        write_temperatures(tmp_path / "one", f"n{n}", n, by_temperature)
        for t, scores in by_temperature.items():
            write_scores(tmp_path / "several", f"n{n}", n, scores, t)
    one, several = (read_runs([tmp_path / name]) for name in ("one", "several"))
    own = at_best_temperature(one, (TASK,))
    assert own["temperature"].tolist() == [0.8, 0.8]
    assert own["value"].tolist() == [0.5, 0.375]
    ends = ["value", "low", "high", "temperature", "count"]
    pd.testing.assert_frame_equal(own[ends], at_best_temperature(several, (TASK,))[ends])
    pd.testing.assert_frame_equal(gains(one, (TASK,))[ends], gains(several, (TASK,))[ends])
    assert gains(one, (TASK,))["value"].tolist() == [-0.125]


def test_greedy_answers_are_no_temperature_to_choose(tmp_path):
    write_scores(tmp_path, "a", 4, [1.0, 1.0])
    write_scores(tmp_path, "a", 4, [1.0, 0.0], 0.8)
    (row,) = at_best_temperature(read_runs([tmp_path]), (TASK,)).to_dict("records")
    assert (row["temperature"], row["value"]) == (0.8, 0.5)


def test_same_text_at_every_k_counts_once(tmp_path):
    write_scores(tmp_path, "base", 1, [0.0, 1.0])
    write_scores(tmp_path, "heads", 4, [1.0, 1.0], k=1)
    write_scores(tmp_path, "heads", 4, [1.0, 1.0], k=4)
    (row,) = gains(read_runs([tmp_path]), (TASK,)).to_dict("records")
    assert (row["k"], row["value"]) == (4, 0.5)


@pytest.mark.parametrize(
    "told",
    [{"parameters": 8_000_000_000}, {"train_tokens": 5}, {"acceptance": "all"}],
    ids=str,
)
def test_models_that_do_not_compare_give_no_gain(tmp_path, told):
    write_scores(tmp_path, "base", 1, [0.0, 1.0])
    write_scores(tmp_path, "heads", 4, [1.0, 1.0], **told)
    assert gains(read_runs([tmp_path]), (TASK,)).empty


def test_other_numbers_of_samples_are_no_pair(tmp_path):
    write_scores(tmp_path, "base", 1, [0.0, 1.0])
    write_scores(tmp_path, "heads", 4, [1.0, 1.0], repeats=7)
    with pytest.raises(ValueError, match="number of samples 1 against 7"):
        gains(read_runs([tmp_path]), (TASK,))


def test_several_baselines_are_refused_unless_one_has_the_label(tmp_path):
    write_scores(tmp_path, "base", 1, [0.0, 1.0])
    write_scores(tmp_path, "other base", 1, [0.0, 0.0])
    write_scores(tmp_path, "heads", 4, [1.0, 1.0])
    with pytest.raises(ValueError, match="heads could be compared with base and other base on"):
        gains(read_runs([tmp_path]), (TASK,))
    write_scores(tmp_path, "heads", 1, [1.0, 0.0])
    (row,) = gains(read_runs([tmp_path]), (TASK,)).to_dict("records")
    assert (row["baseline"], row["value"]) == ("heads", 0.5)


def test_summaries_without_a_baseline_are_shown_as_they_are(tmp_path):
    for n, score in ((2, 0.25), (4, 0.5)):
        write_run(tmp_path, "a", n, metrics={"xsum_mtp": {"rougeL_f1": score}}, parameters=n * 100)
    write_run(tmp_path, "a", 1, metrics={"xsum_mtp": {"rougeL_f1": 0.125}}, parameters=400)
    rows = l_f1(read_runs([tmp_path]))
    shown = {row["n"]: (row["value"], row["baseline"]) for row in rows.to_dict("records")}
    assert shown[4] == (0.375, "a")
    assert shown[1][0] == 0.125 and shown[2][0] == 0.25
    assert pd.isna(shown[2][1])


def test_without_samples_there_is_a_value_and_no_interval(tmp_path):
    for label, n, score in (("base", 1, 0.25), ("heads", 4, 0.5)):
        write_run(tmp_path, label, n, metrics={TASK: {"pass@1": score}})
    (row,) = gains(read_runs([tmp_path]), (TASK,)).to_dict("records")
    assert row["value"] == 0.25
    assert pd.isna(row["low"]) and pd.isna(row["high"])


DAMAGED_SAMPLES = {
    "empty": ("", "is empty, expected one line per document"),
    "half a line": ('{"doc_id": 0, "pass', ":1 is not JSON"),
    "no document": ('{"pass@1": 0.5}\n', ":1 is not a sample"),
    "a list": ("[1, 2]\n", ":1 is not a sample"),
    "no metric": ('{"doc_id": 0}\n', "has no pass@1 for document 0"),
    "a metric of words": ('{"doc_id": 0, "pass@1": "high"}\n', "has no pass@1 for document 0"),
    "zeros": ("\0" * 100, ":1 is not JSON"),
}


@pytest.mark.parametrize("kind", DAMAGED_SAMPLES)
def test_damaged_samples_are_named(tmp_path, kind):
    content, said = DAMAGED_SAMPLES[kind]
    results = write_scores(tmp_path, "a", 4, [0.0, 1.0])
    (samples,) = tmp_path.glob("samples_*.jsonl")
    samples.write_text(content)
    with pytest.raises(ValueError) as raised:
        at_best_temperature(read_runs([results]), (TASK,))
    assert str(samples) in str(raised.value) and said in str(raised.value)


def write_solutions(folder, label, n, bits_by_tokens):
    for tokens, bits in bits_by_tokens.items():
        rows = [["humaneval", i, "bits_per_byte", bits * i] for i in range(1, n + 1)]
        tables = {"mtp_solutions": {"by_offset": table("data_set offset", rows)}}
        write_run(folder, label, n, tables=tables, train_tokens=tokens)


def test_fewer_bits_per_byte_are_reached_downwards(tmp_path):
    write_solutions(tmp_path, "one", 1, {100: 1.4, 1000: 1.1, 10_000: 0.9})
    write_solutions(tmp_path, "four", 4, {100: 1.2, 1000: 1.0, 10_000: 0.8})
    rows = training_figures.efficiency(read_runs([tmp_path]))
    assert set(rows["data_set"]) == {"HumanEval solutions"}
    (reached,) = rows.index[rows["metric"] == "tokens to reach bits_per_byte of n = 1"]
    # From 1.0 at 1000 to .8 at 10,000: .9 is half way in the logarithm, 10^3.5 of 10^4.
    assert rows.loc[reached, "train_tokens"] == round(10**3.5)
    assert rows.loc[reached, "value"] == pytest.approx(10**-0.5)
    assert rows.loc[reached, "baseline_value"] == 0.9


def test_average_rouge_is_over_the_data_sets_that_all_models_have(tmp_path):
    def scores(**by_name):
        return {f"{name}_mtp": {"rougeL_f1": value} for name, value in by_name.items()}

    write_run(tmp_path, "a", 1, metrics=scores(xsum=0.2, samsum=0.4, thaisum=0.9))
    write_run(tmp_path, "b", 4, metrics=scores(xsum=0.3, samsum=0.5))
    rows = rouge_l(read_runs([tmp_path]))
    assert rows["data_set"].unique().tolist() == ["average of 2"]
    assert dict(zip(rows["label"], rows["value"], strict=True)) == pytest.approx(
        {"a": 0.3, "b": 0.4}
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "holds 3 documents, expected the 4"),
        (lambda lines: [*lines, lines[0]], "document 0 twice"),
        (lambda lines: [lines[0].replace("1.0", "NaN"), *lines[1:]], "pass@1 = NaN for 0"),
        (lambda lines: [lines[1], *lines[1:]], "document 1 twice"),
        (lambda lines: [line.replace("0.0", "1.0") for line in lines], "= 1, results_.* says 0.5"),
    ],
)
def test_samples_that_are_not_those_of_the_results_are_refused(tmp_path, change, said):
    passed = [{"pass@1": value} for value in (1.0, 0.0, 1.0, 0.0)]
    told = {"metrics": {"humaneval_mtp": {"pass@1": 0.5}}, "samples": {"humaneval_mtp": passed}}
    write_run(tmp_path, "a", 4, **told)
    (samples,) = tmp_path.glob("samples_*")
    samples.write_text("\n".join(change(samples.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=said):
        list(cells(read_runs([tmp_path]), ("humaneval_mtp",)))


def test_a_model_whose_tokens_are_unknown_is_compared_with_none_whose_are_known(tmp_path):
    write_run(tmp_path, "a", 1, metrics={"mbpp_mtp": {"pass@1": 0.25}}, train_tokens=5)
    write_run(tmp_path, "b", 4, metrics={"mbpp_mtp": {"pass@1": 0.5}})
    assert gains(read_runs([tmp_path]), ("mbpp_mtp",)).empty
