"""Options of `--metadata` that no task of a run has are refused before the model loads."""

import json
import re
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from mtp_harness import tasks_dir
from mtp_harness.errors import UserError
from mtp_harness.harness import checks, task_options

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTED = [
    (tasks, options)
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "tasks").glob("*/README.md"))]
    for tasks, options in re.findall(
        r"--tasks (\S+)[^\n`]*? --metadata '(\{[^']*\})'", path.read_text(encoding="utf-8")
    )
]


@pytest.fixture(scope="module")
def manager():
    return TaskManager(include_path=str(tasks_dir()), include_defaults=False)


def check(manager, tasks, metadata, model_args=None):
    model = type(
        "Model", (), dict.fromkeys(("head_logprobs", "speculative", "drafts", "speed", "induction"))
    )
    checks.check_before_load(
        model=model(),
        tasks=tasks.split(","),
        task_manager=manager,
        predict_only=True,
        metadata=metadata,
        model_args=model_args,
    )


def test_documented_options_are_taken(manager):
    assert len(DOCUMENTED) > 8
    for tasks, options in DOCUMENTED:
        given = json.loads(options)
        check(manager, tasks, given | ({"data_dir": str(CHECKOUT)} if "data_dir" in given else {}))


@pytest.mark.parametrize(
    ("tasks", "options", "said"),
    [
        (
            "mtp_speed",
            {"batch_sizes": [1]},
            "batch_sizes is not an option of mtp_speed: .*baseline",
        ),
        ("mtp_speed", {"trails": 3}, "trails is not an option of mtp_speed: did you mean trials"),
        ("mtp_heads,mtp_perplexity", {"strides": 1}, "of mtp_heads, mtp_perplexity: did you mean"),
        ("mtp_probes", {"qick": True}, "did you mean quick"),
        ("humaneval_mtp", {"n_sample": 20}, "did you mean n_samples"),
        ("docstring_mtp", {"quick": True}, "expected one of instruction"),
        ("mtp_heads", {"quick": "maybe"}, "quick='maybe', expected true or false"),
        ("mtp_heads", {"window": [5]}, r"window=\[5\], expected a whole number"),
        ("mtp_heads", {"window": "wide"}, "window='wide', expected a whole number from 1"),
        ("mtp_speed", {"trials": 0}, "trials=0, expected a whole number from 1"),
        ("mtp_speed", {"batch": [1, "x"]}, r"batch=\[1, 'x'\], expected a whole number from 1"),
        ("mtp_induction", {"density": "thick"}, "density='thick', expected a number"),
        ("mtp_induction", {"seed": 1.5}, "seed=1.5, expected a whole number"),
        ("humaneval_mtp", {"k": []}, r"k=\[\], expected a whole number from 1, or a list"),
        ("mtp_heads", {"folder": 5}, "folder=5, expected a name or a path"),
        ("mtp_induction", {"stories": ""}, "stories='', expected a name or a path"),
        ("mtp_speed", {"baseline": ["a"]}, r"baseline=\['a'\], expected a name or a path"),
        ("mtp_speculative", {"data_dir": "/no/where"}, "data_dir=/no/where is not a folder"),
    ],
)
def test_what_no_task_has_is_refused(manager, tasks, options, said):
    with pytest.raises(UserError, match=said):
        check(manager, tasks, options)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"window": "64", "stride": "2e1"}, {"window": 64, "stride": 20}),
        ({"batch": ["1", 4], "prompt_tokens": "512"}, {"batch": [1, 4], "prompt_tokens": 512}),
        ({"density": "0.5", "temperature": 1.0}, {"density": 0.5, "temperature": 1.0}),
        ({"folder": "10", "baseline": "2e9"}, {"folder": "10", "baseline": "2e9"}),  # names
    ],
)
def test_text_that_spells_a_number_is_one_where_a_number_is_expected(manager, given, read):
    found = task_options.with_numbers(given)
    assert found == read and repr(found) == repr(read)  # 1.0 stays 1.0, which sources name
    check(manager, "mtp_perplexity,mtp_speed,mtp_induction,humaneval_mtp", given)


@pytest.mark.parametrize(
    ("task", "options", "asked"),
    [
        ("mtp_perplexity", {"window": "64", "stride": "32"}, {"window": 64, "stride": 32}),
        ("mtp_speed", {"batch": "2", "prompt_tokens": ["16"], "trials": "1"}, {"trials": 1}),
        ("mtp_speculative", {"new_tokens": "8", "quick": True}, {"new_tokens": 8}),
    ],
)
def test_a_probe_reads_numbers_given_as_text(task, options, asked):
    manager = TaskManager(
        include_path=str(tasks_dir()), include_defaults=False, metadata={**options, "quick": True}
    )
    built = manager.load([task])["tasks"][task]
    question = built.question(built.eval_docs[0])
    assert {name: getattr(question, name) for name in asked} == asked


def test_arithmetic_reads_numbers_given_as_text():
    given = {"count": "2", "operations": ["1"], "pause_tokens": "0", "seed": "3"}
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False, metadata=given)
    assert len(manager.load(["mtp_arithmetic"])["tasks"]["mtp_arithmetic"].eval_docs) == 2


def test_one_task_s_option_is_no_other_s_mistake(manager):
    check(manager, "mtp_heads,mtp_speed,humaneval_mtp", {"trials": 1, "window": 8, "n_samples": 2})


def test_the_model_s_arguments_are_none(manager):
    given = {"pretrained": "a", "attn_implementation": "eager", "window": 8}
    check(manager, "mtp_heads", given, "pretrained=a,attn_implementation=eager")
    check(manager, "mtp_heads", given, {"pretrained": "a", "attn_implementation": "eager"})


def test_tasks_of_others_may_be_told_anything(manager, tmp_path):
    (tmp_path / "theirs.yaml").write_text("task: theirs\noutput_type: generate_until\n")
    both = TaskManager(include_path=[str(tasks_dir()), str(tmp_path)], include_defaults=False)
    check(both, "mtp_heads,theirs", {"max_seq_lengths": [4096]})
