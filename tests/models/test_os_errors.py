"""Files that cannot be opened: one sentence with the path, whatever asks for them."""

import errno
import os

import pytest

from mtp_harness.cli import main
from mtp_harness.errors import in_words, sentence
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import is_local, load_model, load_tokenizer


def replaced_by_folder(path):
    path.unlink()
    path.mkdir()


def replaced_by_dangling_link(path):
    path.unlink()
    path.symlink_to(path.parent / "lost")


def replaced_by_link_to_itself(path):
    path.unlink()
    path.symlink_to(path)


def closed(path):
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.chmod(0o700)
        pytest.skip("this user reads every file: needs one without that right")


DAMAGE = [replaced_by_folder, replaced_by_dangling_link, replaced_by_link_to_itself, closed]


def assert_one_sentence(message, name):
    assert "\n" not in message and "[Errno" not in message and "Error" not in message, message
    assert name in message and ": " in message and len(message) < 700


@pytest.mark.parametrize("name", ["params.json", "consolidated.pth"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_cannot_be_opened(meta_folder, capsys, name, damage):
    damage(meta_folder / name)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_model(str(meta_folder))
    assert caught.type in (ValueError, FileNotFoundError)
    assert_one_sentence(str(caught.value), name)
    assert main(["inspect", str(meta_folder)]) == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  - ")]
    assert problems and name in problems[0]
    for problem in problems:
        assert_one_sentence(problem, name)


@pytest.mark.parametrize("damage", DAMAGE)
def test_tokenizer_that_cannot_be_opened(meta_folder, capsys, damage):
    damage(meta_folder.parent / "tokenizer.model")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_tokenizer(str(meta_folder))
    assert_one_sentence(str(caught.value), "tokenizer.model")
    assert main(["inspect", str(meta_folder)]) == 1
    assert "tokenizer.model" in capsys.readouterr().out


def test_closed_file_of_a_tokenizer(tmp_path):
    byte_tokenizer(64).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        closed(tmp_path / name)
        with pytest.raises(ValueError, match="is closed to this user") as caught:
            load_tokenizer(str(tmp_path))
        assert_one_sentence(str(caught.value), name)
        (tmp_path / name).chmod(0o644)


def test_folder_whose_files_cannot_be_asked_for_is_named_itself(tmp_path):
    (tmp_path / "x").mkdir()
    closed(tmp_path / "x")
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x" / "config.json"))
    assert sentence(error).startswith(f"{tmp_path / 'x'} is closed")


def test_closed_folder(meta_folder, capsys):
    try:
        closed(meta_folder)
        assert main(["inspect", str(meta_folder)]) == 2
    finally:
        meta_folder.chmod(0o755)
    assert_one_sentence(capsys.readouterr().err.strip(), "permission denied")


def test_path_that_is_too_long(capsys):
    path = "/" + "x" * 5000
    for call, name in ((is_local, "x" * 5000), (load_model, path), (load_tokenizer, path)):
        with pytest.raises(ValueError, match="is too long") as caught:
            call(name)
        assert_one_sentence(str(caught.value), "xxx")
    assert main(["inspect", path]) == 2
    assert_one_sentence(capsys.readouterr().err.strip(), "is too long")


def test_path_through_a_file(meta_folder, capsys):
    assert main(["inspect", str(meta_folder / "params.json" / "x")]) == 2
    assert_one_sentence(capsys.readouterr().err.strip(), "params.json/x")


def test_our_own_errors_pass_as_they_are():
    for error in (FileNotFoundError("ours"), OSError("transformers'")):
        with pytest.raises(type(error)) as caught, in_words():
            raise error
        assert caught.value is error and sentence(error) == str(error)


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_error_of_the_system_names_the_file(code):
    assert_one_sentence(sentence(OSError(code, os.strerror(code), "some/file")), "some/file")
    assert "\n" not in sentence(OSError(code, os.strerror(code)))
