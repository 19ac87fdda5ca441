"""`mtp-harness data check` on folders and caches that hold some, all or none of the files."""

import gzip
import json

import pytest

from mtp_harness.cli import main
from mtp_harness.commands import data
from mtp_harness.commands.data import check_tasks
from mtp_harness.data import humaneval, summarization

from ..data.code_fixtures import write_all
from ..data.text_fixtures import SUMMARIES, articles, write_texts


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    """No data of this machine's: neither a folder nor a cache."""
    import datasets
    import huggingface_hub

    monkeypatch.delenv("MTP_HARNESS_DATA", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")

    def refuse(*_, local_files_only, **__):
        assert local_files_only, "the hub was asked"
        raise OSError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


def states(found):
    return {name: status.state for name, status in found.items()}


def test_without_files_only_what_needs_none_is_there():
    found = states(check_tasks())
    assert {name for name, state in found.items() if state != "missing"} <= {
        name for name in found if "custom_dataset" not in name
    }
    assert found["humaneval_mtp"] == "there" and found["docstring_mtp"] == "made"
    missing = {name for name, state in found.items() if state == "missing"}
    assert missing == {
        *("mbpp_mtp", "apps_mtp", "codecontests_mtp", "gsm8k_mtp"),
        *(f"{name}_mtp" for name in SUMMARIES),
        *data.HARNESS_REPOSITORIES,
    }


def test_every_file_put_where_the_command_says_is_found(tmp_path):
    write_texts(write_all(tmp_path))
    found = check_tasks(data_dir=str(tmp_path))
    ours = {name: one for name, one in found.items() if name not in data.HARNESS_REPOSITORIES}
    assert "missing" not in states(ours).values()
    assert found["xsum_mtp"].detail.startswith("3 of 11334 documents")
    assert found["mbpp_mtp"].detail.startswith("8 documents")
    assert found["gsm8k_mtp"] == ("there", f"3 documents, {tmp_path}/gsm8k/test.jsonl")


def test_the_name_a_missing_file_should_have_is_one_that_is_read(tmp_path):
    for name in SUMMARIES:
        told = check_tasks([f"{name}_mtp"], str(tmp_path))[f"{name}_mtp"].detail.split()[1]
        path = tmp_path / told
        path.parent.mkdir(parents=True)
        text, reference = SUMMARIES[name][:2]
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(json.dumps({text: "a", reference: "b"}))
        assert len(summarization.load(name, str(tmp_path))["test"]) == 1


def test_groups_and_twins_are_their_tasks(tmp_path):
    assert list(check_tasks(["mtp_choice"])) == list(data.HARNESS_REPOSITORIES)
    assert list(check_tasks(["gsm8k_mtp_t0.2", "copa"])) == ["gsm8k_mtp_t0.2", "copa"]
    assert "gsm8k_mtp_t0.2" not in check_tasks()


def test_the_cache_of_the_harness_own_tasks(tmp_path):
    folder = tmp_path / "cache" / "datasets" / "baber___piqa" / "default"
    folder.mkdir(parents=True)
    assert states(check_tasks(["piqa"])) == {"piqa": "missing"}
    (folder / "piqa-validation.arrow").touch()
    assert states(check_tasks(["piqa", "copa"])) == {"piqa": "there", "copa": "missing"}


def test_real_articles_are_a_part(shared_data, capsys):
    assert main(["data", "check", "cnn_dailymail_mtp", "--data-dir", str(shared_data)]) == 0
    said = capsys.readouterr().out
    assert f"part     cnn_dailymail_mtp  {len(articles(shared_data))} of 11490 documents" in said


def test_what_is_missing_ends_with_how_to_provide_it(capsys):
    assert main(["data", "check", "xsum_mtp", "docstring_mtp"]) == 0
    said = capsys.readouterr().out
    assert (
        "missing  xsum_mtp       put xsum/test.jsonl.gz into a folder (columns document, summary)"
        in said
    )
    assert "1 missing, 1 made" in said and "MTP_HARNESS_DATA" in said


def test_unknown_names_are_refused(capsys):
    assert main(["data", "check", "xsum"]) == 2
    assert "did you mean xsum_mtp?" in capsys.readouterr().err


def damaged(path, kind):
    """Damage a file; return what is said of it."""
    whole = path.read_bytes()
    match kind:
        case "columns":
            path.write_text('{"text": "a"}\n')
            return f"{path}: a row of XSum lacks document, summary; expected document, summary"
        case "not JSON":
            path.write_bytes(whole[:20])
            return f"{path}:1 is not JSON"
        case "not UTF-8":
            path.write_bytes(b"\xff\xfe" + whole)
            return f"{path} is damaged ('utf-8' codec can't decode"
        case "nothing":
            path.write_bytes(b"")
            return f"{path} has no rows"
        case "half a gzip file" | "no gzip file":
            path.unlink()
            path = path.with_suffix(".jsonl.gz")
            packed = gzip.compress(whole * 1000)
            path.write_bytes(packed[:-20] if kind == "half a gzip file" else whole)
            return f"{path} is damaged ("


@pytest.mark.parametrize(
    "kind",
    ["columns", "not JSON", "not UTF-8", "nothing", "half a gzip file", "no gzip file"],
)
def test_a_damaged_file_is_named_and_the_check_goes_on(tmp_path, capsys, kind):
    write_texts(write_all(tmp_path))
    said = damaged(tmp_path / "xsum" / "test.jsonl", kind)
    tasks = ["samsum_mtp", "xsum_mtp", "mbpp_mtp"]
    assert main(["data", "check", *tasks, "--data-dir", str(tmp_path)]) == 0
    explained, _, *lines = capsys.readouterr().out.partition("\n\n")
    assert explained.startswith("there: found, and where; ")
    lines = lines[0].splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["part", "damaged", "there"]
    assert lines[1].removeprefix("damaged  xsum_mtp    ").startswith(said)
    assert lines[4] == "1 part, 1 damaged, 1 there"
    with pytest.raises(ValueError, match="XSum|xsum"):  # a run says the same in one sentence
        summarization.load("xsum", str(tmp_path))


def test_humaneval_is_looked_into(tmp_path, capsys):
    (tmp_path / "HumanEval.jsonl").write_text('{"task_id": "HumanEval/0"}\n')
    assert main(["data", "check", "humaneval_mtp", "--data-dir", str(tmp_path)]) == 0
    assert "damaged  humaneval_mtp" in capsys.readouterr().out


def test_a_byte_order_mark_is_accepted(tmp_path):
    write_texts(write_all(tmp_path))
    problem = dict.fromkeys(humaneval.KEYS, "text")
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(problem))
    for path in tmp_path.rglob("*.jsonl"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    found = check_tasks(["xsum_mtp", "mbpp_mtp", "humaneval_mtp"], str(tmp_path))
    assert list(states(found).values()) == ["part", "there", "there"]
    assert humaneval.read_problems(str(tmp_path)) == [problem]


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_data_folder_that_does_not_exist_is_named(tmp_path, capsys, monkeypatch, how):
    absent = str(tmp_path / "absent")
    monkeypatch.setenv("MTP_HARNESS_DATA", absent if how == "variable" else "")
    options = ["--data-dir", absent] if how == "option" else []
    assert main(["data", "check", "xsum_mtp", *options]) == 2
    assert f"={absent} is not a folder, expected one with" in capsys.readouterr().err
    with pytest.raises(ValueError, match="absent is not a folder, expected one with"):
        humaneval.read_problems(absent if how == "option" else None)
