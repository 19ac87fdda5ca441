"""`mtp-harness data check` on folders and caches that hold some, all or none of the files."""

import gzip
import json

import pytest

from mtp_harness.cli import main
from mtp_harness.data import check, summarization
from mtp_harness.data.check import check_tasks

from .code_fixtures import write_all
from .text_fixtures import SUMMARIES, articles, write_texts


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
        *check.HARNESS_REPOSITORIES,
    }


def test_every_file_put_where_the_command_says_is_found(tmp_path):
    write_texts(write_all(tmp_path))
    found = check_tasks(data_dir=str(tmp_path))
    ours = {name: one for name, one in found.items() if name not in check.HARNESS_REPOSITORIES}
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
    assert list(check_tasks(["mtp_choice"])) == list(check.HARNESS_REPOSITORIES)
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
    assert main(["data", "check", "xsum_mtp", "docstring_mtp"]) == 1
    said = capsys.readouterr().out
    assert (
        "missing  xsum_mtp       put xsum/test.jsonl.gz there (columns document, summary)" in said
    )
    assert "1 missing, 1 made" in said and "MTP_HARNESS_DATA" in said


def test_unknown_names_and_columns_are_refused(tmp_path, capsys):
    assert main(["data", "check", "xsum"]) == 2
    assert "did you mean xsum_mtp?" in capsys.readouterr().err
    write_texts(tmp_path)
    (tmp_path / "xsum" / "test.jsonl").write_text('{"text": "a"}\n')
    assert main(["data", "check", "xsum_mtp", "--data-dir", str(tmp_path)]) == 2
    assert "a row of XSum lacks document, summary" in capsys.readouterr().err
