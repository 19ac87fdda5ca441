"""A journal loses nothing that was finished, whatever kills the process, and mixes up nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtp_harness.decode.journal import Journal, answer_key, recorded_settings

SETTINGS = {"pretrained": "mtp-bytes-n4", "draft_heads": 4, "until": ["\n"], "seed": 0}
ENTRIES = {f"task/{i}/0/0/ä": {"text": f"line\n{i} „x“", "tokens": [i, i + 1]} for i in range(4)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "answers.jsonl"


def opened(path, settings=SETTINGS, rank=0):
    """Return what a run would find: a journal's entries."""
    book = Journal(path, settings, rank)
    found = {key: book.get(key) for key in [*ENTRIES, "new"] if book.get(key) is not None}
    assert len(book) == len(found)
    book.close()
    return found


def write(path, entries, settings=SETTINGS, rank=0):
    book = Journal(path, settings, rank)
    for key, entry in entries.items():
        book.add(key, entry)
    book.close()


def test_entries_are_found_again(path):
    book = Journal(path, SETTINGS)
    assert book.get("task/0/0/0/ä") is None
    for key, entry in ENTRIES.items():
        book.add(key, entry)
        assert book.get(key) == entry
    book.close()
    book.close()  # harmless
    assert opened(path) == ENTRIES


def test_file_is_lines_of_json_after_a_header(path):
    write(path, ENTRIES)
    header, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert header == {"journal": 1, "settings": SETTINGS}
    assert {line["key"]: line["entry"] for line in lines} == ENTRIES


def test_opening_again_changes_nothing(path):
    write(path, ENTRIES)
    before = path.read_bytes()
    assert opened(path) == ENTRIES
    assert path.read_bytes() == before


def test_tuples_and_lists_are_the_same_settings(path):
    write(path, ENTRIES, {"until": ["a", "b"], "nested": {"x": [1, None]}})
    assert opened(path, {"nested": {"x": (1, None)}, "until": ("a", "b")}) == ENTRIES


# Torn lines


def test_a_line_torn_at_any_byte_is_cut_off_and_written_again(path):
    write(path, ENTRIES)
    whole = path.read_bytes()
    *_, last = ENTRIES
    start = whole.rindex(b"\n", 0, -1) + 1
    rest = {key: entry for key, entry in ENTRIES.items() if key != last}
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert opened(path) == rest
        assert path.read_bytes() == whole[:start]
        write(path, {last: ENTRIES[last]})
        assert path.read_bytes() == whole


def test_a_header_torn_at_any_byte_is_written_again(path):
    write(path, ENTRIES)
    whole = path.read_bytes()
    header = whole[: whole.index(b"\n") + 1]
    for end in range(len(header)):
        path.write_bytes(header[:end])
        write(path, ENTRIES)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("end", [b"\0\0\0\0\n", b'{"key": "new", "ent\n', b"\xff\n", b"7\n", b"\n"])
def test_a_last_line_that_is_no_entry_is_cut_off(path, end):
    """A file system may write out a file's size before its last block."""
    write(path, ENTRIES)
    whole = path.read_bytes()
    path.write_bytes(whole + end)
    assert opened(path) == ENTRIES
    assert path.read_bytes() == whole


def test_torn_line_of_another_rank_is_left_alone(path):
    write(path, ENTRIES)
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert opened(path, rank=1) == dict(list(ENTRIES.items())[:-1])
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    "line", [b"\0\0\n", b'{"key": "new"}\n', b"[]\n", b"\n", b'{"entry": {}}\n']
)
def test_a_bad_line_elsewhere_is_named(path, line):
    write(path, ENTRIES)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    before = path.read_bytes()
    for rank in (0, 1):
        with pytest.raises(ValueError, match=rf"^{path}:3 is not an entry of a journal, expected"):
            Journal(path, SETTINGS, rank)
    assert path.read_bytes() == before


def test_a_bad_line_before_a_torn_one_is_named(path):
    write(path, ENTRIES)
    path.write_bytes(path.read_bytes() + b"bad\n" + b'{"key"')
    with pytest.raises(ValueError, match=f"{path}:6 is not an entry"):
        Journal(path, SETTINGS)


# Killed processes

WRITER = r"""
import itertools, os, sys
from pathlib import Path
from mtp_harness.decode.journal import Journal

book = Journal(Path(sys.argv[1]), {"a": 1})
for number in itertools.count():
    if book.get(str(number)) is None:
        book.add(str(number), {"square": number * number, "text": "x" * (number % 5000)})
        os.write(1, b"%d\n" % number)  # from here on it must not be lost
"""


def writer(path, code=WRITER, stdout=subprocess.PIPE):
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_sigkill_at_any_moment_loses_and_repeats_nothing(path, tmp_path):
    rng = random.Random(0)
    with (tmp_path / "reported").open("w+") as out:
        for _ in range(10):
            process = writer(path, stdout=out)
            time.sleep(rng.uniform(0.02, 0.3))  # it may not even have begun
            process.send_signal(signal.SIGKILL)
            assert process.communicate()[1] == ""
        out.seek(0)
        reported = [int(line) for line in out if line.endswith("\n")]
    assert len(reported) == len(set(reported)) > 50  # each was computed once
    book = Journal(path, {"a": 1})
    for number in reported:
        text = "x" * (number % 5000)
        assert book.get(str(number)) == {"square": number * number, "text": text}
    # Killed between writing and reporting, each process may leave one entry more.
    assert len(reported) <= len(book) <= len(reported) + 10
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys))
    book.close()


def test_a_process_at_work_keeps_others_out_until_it_is_gone(path):
    process = writer(path)
    process.stdout.readline()
    try:
        with pytest.raises(ValueError, match=rf"^journal {path} is in use by another process, "):
            Journal(path, {"a": 1})
        Journal(path, {"a": 1}, rank=1).close()
    finally:
        process.kill()
        process.communicate()
    Journal(path, {"a": 1}).close()


def test_a_program_that_outlives_its_parent_does_not_keep_the_journal(path):
    start = (
        "import subprocess\nprint(subprocess.Popen(['sleep', '60'], stdout=2).pid, flush=True)\n"
    )
    process = writer(path, WRITER.replace("for number", f"{start}for number"))
    sleeper = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        os.kill(sleeper, 0)  # it is there
        Journal(path, {"a": 1}).close()
    finally:
        os.kill(sleeper, signal.SIGKILL)
        process.communicate()


def test_closing_lets_others_have_it(path):
    first = Journal(path, SETTINGS)
    with pytest.raises(ValueError, match="in use"):
        Journal(path, SETTINGS)
    first.close()
    Journal(path, SETTINGS).close()


# Ranks


def test_ranks_write_files_of_their_own_and_read_all(path):
    items = list(ENTRIES.items())
    books = [Journal(path, SETTINGS, rank) for rank in range(3)]
    for (key, entry), book in zip(items, [*books, books[0]], strict=True):
        book.add(key, entry)
    for book in books:
        book.close()
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "answers.jsonl",
        "answers.jsonl.rank1",
        "answers.jsonl.rank2",
    ]
    for rank in (0, 1, 2, 3, 11):  # also with more and with fewer processes than before
        assert opened(path, rank=rank) == ENTRIES


def test_other_files_beside_it_are_not_read(path):
    write(path, ENTRIES)
    for name in ("answers.jsonl.rankx", "answers.jsonl.rank1.bak", "answersXjsonl", "b.rank1"):
        (path.parent / name).write_text("something else")
    (path.parent / "answers.jsonl.rank7").mkdir()
    assert opened(path) == ENTRIES


# Settings


def test_other_settings_are_refused_with_each_difference(path):
    write(path, ENTRIES)
    before = path.read_bytes()
    other = {"pretrained": "mtp-bytes-n4", "draft_heads": 3, "until": ["\n", "x"], "dtype": "half"}
    with pytest.raises(ValueError) as raised:
        Journal(path, other)
    assert str(raised.value) == (
        f"journal {path} holds answers of other settings, differing in "
        'draft_heads (4 there, 3 now), dtype (absent there, "half" now), seed (0 there, absent '
        'now), until (["\\n"] there, ["\\n", "x"] now): repeat those settings, remove the file, or '
        "name another."
    )
    assert path.read_bytes() == before
    assert opened(path) == ENTRIES  # the refused one let go of it


def test_other_settings_of_another_rank_are_refused(path):
    write(path, ENTRIES, rank=1)
    with pytest.raises(ValueError, match=rf"^journal {path}.rank1 .* seed \(0 there, 1 now\): "):
        Journal(path, SETTINGS | {"seed": 1})
    assert not path.exists()


def test_settings_are_compared_as_json(path):
    """0 == False and 1 == 1.0 in Python; nan != nan."""
    write(path, ENTRIES, {"a": 0, "b": float("nan")})
    assert opened(path, {"a": 0, "b": float("nan")}) == ENTRIES
    with pytest.raises(ValueError, match=r"differing in a \(0 there, false now\): "):
        Journal(path, {"a": False, "b": float("nan")})


def test_recorded_settings_can_be_asked_for_before(path):
    assert recorded_settings(path) is None
    book = Journal(path, SETTINGS, rank=1)
    assert recorded_settings(path) == SETTINGS == book.settings
    book.close()
    path.write_text("")  # rank 0 was killed before it wrote anything
    assert recorded_settings(path) == SETTINGS


# Files that cannot be


@pytest.mark.parametrize(
    "content", ["hello", "hello\n", '{"doc_id": 0}\n', '{"journal"}', "\n", '{"a": 1}', "\0\0\0"]
)
def test_a_file_that_is_no_journal_is_left_alone(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path} is not a journal, expected "):
        Journal(path, SETTINGS)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "content",
    [
        '{"journal": 2, "settings": {}}\n',
        '{"journal": 1}\n',
        '{"journal": 1, "settings": 3}\n',
        '{"journal": \n',
    ],
)
def test_a_header_of_another_kind_is_refused(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"^{path}:1 is not the header of a journal of version 1"):
        Journal(path, SETTINGS)
    assert path.read_text() == content


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=rf"^journal {tmp_path} cannot be written \(Is a directory"
    ):
        Journal(tmp_path, SETTINGS)


def test_an_unwritable_path_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "journal", "/proc/journal"):
        with pytest.raises(
            ValueError, match=rf"^journal {path} cannot be written \(.+\), expected"
        ):
            Journal(Path(path), SETTINGS)


def test_a_device_is_refused():
    with pytest.raises(ValueError, match=r"^journal /dev/null cannot be written \(not a regular"):
        Journal(Path("/dev/null"), SETTINGS)


FILLER = """
import resource, signal, sys
from pathlib import Path
from mtp_harness.decode.journal import Journal

book = Journal(Path(sys.argv[1]), {"a": 1})
book.add("one", {"text": "x" * 100})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for key, size in [("two", 5000), ("three", 100)]:
    try:
        book.add(key, {"text": "x" * size})
    except ValueError as error:
        print(error)
"""


def test_a_full_disk_is_one_sentence_and_leaves_whole_lines(path):
    out, err = writer(path, FILLER).communicate()
    assert err == ""
    assert out.startswith(f"journal {path} cannot be written (") and out.count("\n") == 1
    book = Journal(path, {"a": 1})
    assert book.get("two") is None
    assert book.get("one") == book.get("three") == {"text": "x" * 100}
    book.close()


# Keys

KEY = ("task", 1, 2, 3, [4, 5], {"until": ["\n"], "temperature": 0.8})


def test_key_is_readable_and_stable():
    key = answer_key(*KEY)
    assert key.startswith("task/1/2/3/") and len(key) == len("task/1/2/3/") + 32
    same = (*KEY[:4], (4, 5), {"temperature": 0.8, "until": ("\n",)})
    assert answer_key(*same) == key


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "task2"),
        (1, 9),
        (2, 9),
        (3, 9),
        (4, [4, 6]),
        (4, [45]),
        (5, {"until": ["\n"], "temperature": 0.7}),
        (5, {}),
    ],
)
def test_key_depends_on_everything(place, value):
    changed = [*KEY]
    changed[place] = value
    assert answer_key(*changed) != answer_key(*KEY)


def test_keys_do_not_depend_on_how_parts_are_joined():
    assert answer_key("a/1", 2, 0, 0, [], {}) != answer_key("a", 1, 2, 0, [0], {})
