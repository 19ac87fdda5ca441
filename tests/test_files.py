"""Files appear whole or not at all; `~` is what a shell makes of it."""

import ast
import json
import os
from pathlib import Path

import pytest

import mtp_harness
from mtp_harness.files import user_path, whole, whole_files, write_whole

PACKAGE = Path(mtp_harness.__file__).parent

WRITERS = {
    "write_text",
    "write_bytes",
    "save_pretrained",
    "savefig",
    "to_csv",
    "dump",
    "save",
    "save_file",
}
EXCEPTIONS = {
    "files.py": "the one way",
    "figures/figure.py": "savefig writes into memory",
    "figures/differences.py": "savefig writes into memory",
    "results/tidy.py": "to_csv returns text",
    "models/convert.py": "writes a scratch folder, compares it, renames it",
    "pipeline/run.py": "a log that grows while a cell runs; a lock that holds nothing",
    "probes/hardware.py": "a switch of the kernel's",
    "sandbox/linux.py": "switches of the kernel's",
    "sandbox/launcher.py": "a switch of the kernel's",
    "sandbox/rootfs.py": "a switch of the kernel's",
    "sandbox/script.py": "a program's own output",
    "commands/train.py": "into the draft of files.whole_files",
    "training/trained.py": "into the draft of files.whole_files",
    "training/loop.py": "into a draft of files.whole",
}


def writes(path):
    """The calls of a file that write one: known names, and `open` with a mode that writes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            values = [a for a in [*node.args, *(k.value for k in node.keywords)]]
            modes = [a.value for a in values if isinstance(a, ast.Constant)]
            opens = called == "open" and any(
                isinstance(mode, str) and len(mode) < 4 and set(mode) & set("wax+")
                for mode in modes
            )
            if called in WRITERS or opens:
                yield node.lineno


def test_nothing_in_the_package_writes_a_file_in_another_way():
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if any(writes(path))}
    assert found == EXCEPTIONS.keys()


def test_a_file_is_written_whole(tmp_path):
    for text in ("one", "two"):
        write_whole(tmp_path / "new" / "a", text)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a"]
    assert (tmp_path / "new" / "a").read_text() == "two"


def test_what_fails_on_the_way_leaves_the_file_before(tmp_path):
    write_whole(tmp_path / "a", "before")
    with pytest.raises(RuntimeError), whole(tmp_path / "a") as draft:
        draft.write_text("half")
        assert (tmp_path / "a").read_text() == "before"
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_half_a_character_is_written_as_json_escapes_it(tmp_path):
    line = {"answer": "a \ud83d b", "other": "naïve 😀"}
    write_whole(tmp_path / "a", json.dumps(line, ensure_ascii=False))
    assert json.loads((tmp_path / "a").read_text(encoding="utf-8")) == line


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_a_name_may_be_as_long_as_names_may_be(tmp_path):
    write_whole(tmp_path / ("n" * 255), "text")
    assert [len(file.name) for file in tmp_path.iterdir()] == [255]


def test_an_error_names_the_file_and_not_its_draft(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    target = tmp_path / "closed" / "a"
    if os.access(target.parent, os.W_OK):
        target = Path("/proc/self/a")  # closed to root, too
    with pytest.raises(OSError) as error:
        write_whole(target, "text")
    assert str(error.value.filename) == str(target.resolve())


def test_a_folder_gets_its_files_whole_and_the_one_that_names_it_last(tmp_path, monkeypatch):
    moved = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (moved.append(Path(to).name), replace(self, to))[1]
    )
    (tmp_path / "kept").touch()
    with whole_files(tmp_path, last="b") as draft:
        for name in "abc":
            (draft / name).write_text(name)
        assert not (tmp_path / "a").exists()
    assert moved == ["a", "c", "b"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c", "kept"]


def test_home_is_what_a_shell_makes_of_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x") == Path("/home/me/x")
    assert user_path("./~/x") == Path("./~/x")
    assert user_path("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
