import json
import shlex

import pytest
from lm_eval._cli.harness import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig

from mtp_harness.pipeline.cell import Cell
from mtp_harness.pipeline.results import complete_results, remove_results

STAMP = "2026-01-31T12-00-00.000000"


def cell(folder, **changes):
    values = {
        "label": "n4",
        "task": "humaneval_mtp",
        "model_args": {"pretrained": "mtp-bytes-n4", "draft_heads": 2},
        "settings": {"limit": 3, "seed": 7, "metadata": {"k": [1, 2], "temperature": 0.5}},
        "folder": folder,
    }
    return Cell(**(values | changes))


def write_results(folder, command="lm_eval", documents=2, lines=None):
    inner = folder / "mtp-bytes-n4"
    inner.mkdir(parents=True, exist_ok=True)
    content = {
        "results": {"humaneval_mtp": {"pass@1,none": 0.5}},
        "configs": {"humaneval_mtp": {}},
        "n-samples": {"humaneval_mtp": {"original": 164, "effective": documents}},
        "config": {"mtp": {"command": command, "n_future_tokens": 4, "draft_heads": 2}},
    }
    path = inner / f"results_{STAMP}.json"
    path.write_text(json.dumps(content))
    samples = "".join(f'{{"doc_id": {i}}}\n' for i in range(documents)) if lines is None else lines
    (inner / f"samples_humaneval_mtp_{STAMP}.jsonl").write_text(samples)
    return path


@pytest.mark.parametrize(
    "model_args",
    [
        {"pretrained": "mtp-bytes-n4", "draft_heads": 2},
        {"pretrained": "a folder, with commas", "dtype": "float32", "truncation": True},
        {"pretrained": "12", "draft_threshold": 0.5},  # text that reads like a number
        {"pretrained": "m", "chat_template_args": {"a": [1, "x=y"]}},
    ],
)
def test_the_harness_reads_what_the_suite_says(tmp_path, model_args):
    mine = cell(tmp_path, model_args=model_args, settings={"seed": [1, 2, 3, 4], "limit": 0.5})
    pasted = shlex.split(shlex.join(mine.arguments()))
    config = EvaluatorConfig.from_cli(HarnessCLI()._parser.parse_args(["run", *pasted]))
    added = {"label": "n4", "journal": str(tmp_path / "journal.jsonl")}
    assert config.model_args == model_args | added
    assert (config.seed, config.limit) == ([1, 2, 3, 4], 0.5)
    assert (config.tasks, config.output_path) == (["humaneval_mtp"], str(tmp_path))
    assert config.log_samples and config.model == "mtp"


def test_metadata_and_switches_reach_the_harness(tmp_path):
    settings = {
        "metadata": {"k": [1, 2]},
        "apply_chat_template": True,
        "confirm_run_unsafe_code": False,
        "gen_kwargs": {"max_gen_toks": 8},
    }
    arguments = cell(tmp_path, settings=settings, journal=False).arguments()
    config = EvaluatorConfig.from_cli(HarnessCLI()._parser.parse_args(["run", *arguments]))
    assert config.metadata["k"] == [1, 2] and "journal" not in config.model_args
    assert config.apply_chat_template is True and not config.confirm_run_unsafe_code
    assert config.gen_kwargs == {"max_gen_toks": 8}


def test_a_finished_cell_is_known_by_whole_results(tmp_path):
    mine = cell(tmp_path)
    assert mine.finished() is None
    mine.begin()
    assert mine.finished() is None
    path = write_results(tmp_path)
    assert mine.finished().path == path


@pytest.mark.parametrize("lines", ["", '{"doc_id": 0}\n', '{"doc_id": 0}\n{"doc_i'])
def test_torn_samples_are_not_finished(tmp_path, lines):
    write_results(tmp_path, lines=lines)
    assert complete_results(tmp_path, "humaneval_mtp") is None


def test_torn_results_are_not_finished_and_go_away(tmp_path):
    path = write_results(tmp_path)
    path.write_text(path.read_text()[:-5])
    (tmp_path / "journal.jsonl").write_text("kept")
    assert complete_results(tmp_path, "humaneval_mtp") is None
    remove_results(tmp_path)
    assert [file.name for file in tmp_path.rglob("*.json*")] == ["journal.jsonl"]


def test_several_answers_of_a_document_are_one_document(tmp_path):
    write_results(tmp_path, lines='{"doc_id": 0}\n{"doc_id": 0}\n{"doc_id": 1}\n')
    assert complete_results(tmp_path, "humaneval_mtp") is not None


def test_other_settings_are_refused_by_name(tmp_path):
    cell(tmp_path).begin()
    write_results(tmp_path)
    other = cell(
        tmp_path,
        model_args={"pretrained": "mtp-bytes-n4", "draft_heads": 4, "dtype": "float64"},
        settings={"limit": 4, "seed": 7, "metadata": {"k": [1], "temperature": 0.5}},
    )
    with pytest.raises(ValueError, match="is finished with other settings") as caught:
        other.finished()
    message = str(caught.value)
    for part in (
        "limit (3 there, 4 now)",
        "model_args.draft_heads (2 there, 4 now)",
        'model_args.dtype (none there, "float64" now)',
        "metadata.k ([1, 2] there, [1] now)",
    ):
        assert part in message
    assert "seed" not in message and "temperature" not in message


def test_a_begun_cell_may_go_on_with_another_batch_size_alone(tmp_path):
    cell(tmp_path, settings={"batch_size": 8}).begin()
    other = cell(tmp_path, settings={"batch_size": 4})
    assert other.finished() is None
    with pytest.raises(ValueError, match="was begun with other settings, differing in limit"):
        cell(tmp_path, settings={"batch_size": 4, "limit": 1}).finished()
    write_results(tmp_path)
    with pytest.raises(ValueError, match=r"is finished with .* batch_size \(8 there, 4 now\)"):
        other.finished()


@pytest.mark.parametrize("content", ["", "{", "3", '"text"', "\ud83d"])
def test_damaged_settings_are_named(tmp_path, content):
    mine = cell(tmp_path)
    (tmp_path / "cell.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=f"{tmp_path}/cell.json is damaged, expected the settings"):
        mine.finished()


@pytest.mark.parametrize("content", [b"\xff", b'{"results": {"humaneval_mtp": {}}}'])
def test_damaged_results_do_not_count(tmp_path, content):
    write_results(tmp_path).write_bytes(content)
    assert complete_results(tmp_path, "humaneval_mtp") is None


def test_a_pasted_command_counts(tmp_path):
    mine = cell(tmp_path)
    write_results(tmp_path, shlex.join(["lm_eval", "run", *mine.arguments()]))
    assert mine.finished() is not None
    with pytest.raises(ValueError, match=r"is not of this suite \(it was made by lm_eval --model"):
        cell(tmp_path, settings={}).finished()
