"""MBPP, APPS and CodeContests: found in a folder, in the cache or nowhere, and read."""

import json

import pytest

from mtp_harness.data import apps, codecontests, mbpp, sources

from . import code_fixtures as fixtures

MODULES = (mbpp, apps, codecontests)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("MTP_HARNESS_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path):
    return str(fixtures.write_all(tmp_path))


@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_found_and_the_argument_comes_first(module, tmp_path, monkeypatch):
    monkeypatch.setenv("MTP_HARNESS_DATA", str(tmp_path / "env"))
    (tmp_path / "env").mkdir()
    for name in module.SOURCE.files:
        path = tmp_path / "given" / name.replace("*", "part-0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert sources.find_files(module.SOURCE, str(tmp_path / "given")) == [path]
        path.unlink()
    other = fixtures.write(tmp_path / "env" / module.SOURCE.files[1], [{}])
    assert sources.find_files(module.SOURCE, str(tmp_path / "given")) == [other]


@pytest.mark.parametrize("module", MODULES)
def test_what_is_missing_is_named_with_the_ways_to_get_it(module, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_from_hub", lambda source, offline: [])
    with pytest.raises(FileNotFoundError) as caught:
        module.load(str(tmp_path))
    for part in ("MTP_HARNESS_DATA", "data_dir", module.SOURCE.repository, str(tmp_path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cache_comes_before_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, *, local_files_only, **_):
        asked.append(local_files_only)
        if local_files_only:
            raise OSError("not cached")
        fixtures.write(tmp_path / "test.jsonl", fixtures.APPS)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    assert sources.find_files(apps.SOURCE) == [tmp_path / "test.jsonl"]
    assert asked == [True, False]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError):
        sources.find_files(apps.SOURCE)
    assert asked == [True, False, True]


@pytest.mark.parametrize("module", MODULES)
def test_missing_column_is_named(module, tmp_path):
    fixtures.write(tmp_path / module.SOURCE.files[1], [{"task_id": 1}])
    with pytest.raises(ValueError, match=f"a row of {module.SOURCE.title} lacks"):
        module.load(str(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("{oops", ":1 is not JSON"), ("[]", ":1 is a list")])
def test_unreadable_file_is_refused(tmp_path, text, message):
    (tmp_path / "mbpp.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        mbpp.load(str(tmp_path))
    (tmp_path / "mbpp.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no problems"):
        mbpp.load(str(tmp_path))


def test_parquet_is_read(tmp_path):
    import datasets

    path = tmp_path / "code_contests" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    datasets.Dataset.from_list(fixtures.CODE_CONTESTS).to_parquet(str(path))
    assert [row["task_id"] for row in codecontests.read_problems(str(tmp_path))] == ["1_A. Sum"]


class TestMBPP:
    def test_splits_follow_the_ids(self, folder):
        found = {name: list(split["task_id"]) for name, split in mbpp.load(folder).items()}
        assert found == {
            "prompt": [1, 2, 3, 4],
            "test": [11, 12, 13],
            "validation": [600],
            "shots": [2, 3, 4],
        }

    def test_what_the_tests_use(self, folder):
        rows = {row["task_id"]: row for row in mbpp.read_problems(folder)}
        assert (rows[11]["entry_point"], rows[11]["exports"]) == ("add_11", [])
        assert rows[11]["imports"] == "import math"
        assert (rows[13]["entry_point"], rows[13]["exports"]) == ("depth", ["Node"])
        assert "\r" not in json.dumps(rows)

    def test_real_data(self, shared_data):
        rows = mbpp.read_problems(str(shared_data))
        assert [row["task_id"] for row in rows] == list(range(1, 975))
        assert {row["task_id"] for row in rows if row["exports"]} == {367, 601, 927}
        assert {row["task_id"] for row in rows if row["imports"]} == {596}
        assert len(mbpp.load(str(shared_data))["test"]) == 500


class TestAPPS:
    def test_one_difficulty_without_the_problems_that_have_no_tests(self, folder, caplog):
        rows = apps.read_problems(folder)
        assert [row["task_id"] for row in rows] == ["APPS/4000", "APPS/4001"]
        assert "1 of 3 problems of APPS have no tests" in caplog.text
        assert [row["fn_name"] for row in rows] == ["", "pair"]
        assert json.loads(rows[0]["tests"]) == [["1 2\n", "3\n"], ["3 4\n", "7\n"]]
        assert len(apps.load(folder, difficulty="interview")["test"]) == 1

    def test_odd_difficulty_is_refused(self, folder):
        with pytest.raises(ValueError, match="difficulty='easy'; expected one of introductory"):
            apps.load(folder, difficulty="easy")
        with pytest.raises(ValueError, match="no competition problem"):
            apps.load(folder, difficulty="competition")

    def test_integers_of_thousands_of_digits_are_read(self, tmp_path):
        long = "1" + "0" * 9999
        row = fixtures.apps_row(1, "introductory", {"inputs": [], "outputs": []})
        row["input_output"] = f'{{"fn_name": "f", "inputs": [[{long}]], "outputs": [{long}]}}'
        fixtures.write(tmp_path / "apps_test.jsonl", [row])
        (problem,) = apps.read_problems(str(tmp_path))
        assert problem["tests"] == f"[[[{long}], {long}]]"


class TestCodeContests:
    def test_tests_in_order_and_solutions_in_python_3(self, folder):
        (row,) = codecontests.read_problems(folder)
        assert json.loads(row["tests"]) == [["1 2\n", "3\n"], ["5 6\n", "11\n"]]
        assert row["solutions"] == [fixtures.SUM_SCRIPT]

    def test_annotation_is_an_option(self, folder):
        assert codecontests.load(folder)["test"]["annotation"][:] == [""]
        assert codecontests.load(folder, reward="correct")["test"]["annotation"][:] == ["correct"]
