"""`mtp-harness tasks`: facts are those of the tasks, and the README has the same table."""

from pathlib import Path

import pytest

from mtp_harness.cli import main
from mtp_harness.commands import tasks
from mtp_harness.commands.data import Status
from mtp_harness.data.summarization import BENCHMARKS
from mtp_harness.harness.task_facts import CPU_RATE, FACTS, Took
from mtp_harness.harness.task_index import configuration, our_index
from mtp_harness.probes.task import ProbeTask

README = Path(__file__).resolve().parents[2] / "README.md"


def configs():
    found = {name: configuration(entry) for name, entry in our_index().items()}
    return {name: one for name, one in found.items() if "group" not in one}


def test_every_task_has_facts_and_no_other():
    plain = {name for name in configs() if not any(f"_t{digit}" in name for digit in "01")}
    assert plain == set(FACTS)


def test_answers_are_as_long_as_the_tasks_let_them_be():
    for name, config in configs().items():
        if name in FACTS:
            longest = (config.get("generation_kwargs") or {}).get("max_gen_toks", 0)
            assert FACTS[name].answer_tokens == longest, name
    for benchmark, known in BENCHMARKS.items():
        assert FACTS[f"{benchmark}_mtp"].n_answers == known.n_test


def test_probes_need_no_samples():
    from lm_eval.tasks._yaml_loader import load_yaml

    for name, entry in our_index().items():
        if name in FACTS:
            is_probe = issubclass(load_yaml(entry.yaml_path)["class"], ProbeTask)
            assert FACTS[name].writes == (not is_probe), name


def test_an_estimate_is_documents_by_answers_by_rate():
    assert not FACTS["mbpp_mtp"].cpu().measured
    assert FACTS["mbpp_mtp"].cpu().seconds == pytest.approx(500 * 512 / CPU_RATE)
    quick = FACTS["mtp_heads"]
    assert quick.cpu() == Took(quick.quick_cpu_s * 10, measured=False)  # 1 MB instead of 100 kB


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "?"), (0.3, "~1 s"), (81, "~81 s"), (360, "~6 min"), (7200, "~2 h"), (400_000, "~5 days")],
)
def test_times_are_short(seconds, said):
    assert str(Took(seconds, measured=False)) == said
    assert str(Took(seconds, measured=True)) == said.removeprefix("~")


def test_the_readme_has_the_table_of_the_command():
    assert tasks.markdown() in README.read_text("utf-8"), "mtp-harness tasks --markdown"


def test_one_line_a_task_with_its_documents(capsys, monkeypatch):
    found = {"humaneval_mtp": Status("there", ""), "mbpp_mtp": Status("missing", "")}
    monkeypatch.setattr(tasks, "check_tasks", lambda names, folder: found)
    assert main(["tasks", "mtp_code"]) == 0
    heading, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert heading.split() == "task measures 2 cores one GPU --log_samples documents".split()
    assert [line.split()[0] for line in lines] == list(found)
    assert [line.split()[-2:] for line in lines] == [["yes", "there"], ["yes", "missing"]]


def test_tasks_that_were_asked_for_are_never_left_out(capsys):
    asked = ["humaneval_mtp_t0.8", "gsm8k_mtp_t0.2", "hellaswag"]
    assert main(["tasks", *asked]) == 0
    _, sampled, maths, hellaswag = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert "pass@1 on HumanEval, 200 samples, temperature 0.8" in sampled
    assert str(Took(200 * FACTS["humaneval_mtp"].cpu().seconds, measured=False)) in sampled
    assert maths.startswith("gsm8k_mtp_t0.2") and ", temperature 0.2" in maths
    assert hellaswag.startswith("hellaswag ") and "one of lm_eval's own tasks" in hellaswag


def test_commas_are_no_spaces(capsys):
    assert main(["tasks", "humaneval_mtp,mbpp_mtp"]) == 2
    assert "expected spaces between names: humaneval_mtp mbpp_mtp" in capsys.readouterr().err


def test_groups_count_what_is_here(capsys, monkeypatch):
    found = {"humaneval_mtp": Status("there", ""), "mbpp_mtp": Status("missing", "")}
    monkeypatch.setattr(tasks, "check_tasks", lambda names, folder: found)
    assert main(["tasks"]) == 0
    [code] = [x for x in capsys.readouterr().out.splitlines() if x.startswith("mtp_code ")]
    assert "group of 2" in code and code.endswith("1 of 2 here")


def test_a_misspelt_task_gets_the_near_one(capsys):
    assert main(["tasks", "humanevl_mtp"]) == 2
    assert "did you mean humaneval_mtp?" in capsys.readouterr().err
