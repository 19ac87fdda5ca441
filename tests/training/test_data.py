"""Training text from a file, a folder or the recipe, and batches that depend on the step only."""

import hashlib

import numpy as np
import pytest

from mtp_harness.training.data import Batches, load


def test_a_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("ä = 1\n", encoding="utf-8")
    text = load(tmp_path / "a.txt")
    assert bytes(text.data) == b"\0" + "ä = 1\n".encode()
    assert text.report == {
        "n_documents": 1,
        "n_bytes": 8,
        "data_sha256": hashlib.sha256(b"\0\xc3\xa4 = 1\n").hexdigest(),
    }


def test_a_folder_has_a_document_in_each_file_by_name(tmp_path):
    for name in ("b.py", "a/z.txt", "a/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert bytes(load(tmp_path).data) == b"\0a/c.txt\0a/z.txt\0b.py"


def test_byte_0_in_a_document_is_refused_with_the_file_s_name(tmp_path):
    (tmp_path / "good.txt").write_text("x")
    (tmp_path / "table.bin").write_bytes(b"x\0y")
    with pytest.raises(ValueError, match=r"table\.bin holds byte 0, .* expected text"):
        load(tmp_path)


def test_the_end_of_a_text_is_held_out_and_the_rest_is_trained_on(tmp_path):
    content = bytes(np.random.default_rng(0).integers(1, 128, 9_999).astype(np.uint8))
    (tmp_path / "a.txt").write_bytes(content)
    text = load(tmp_path / "a.txt")
    assert bytes(text.data) + bytes(text.held_out) == b"\0" + content
    assert len(text.held_out) == 200
    windows = text.held_out_windows(context=30)
    assert windows.shape == (5, 38) and windows.tobytes() == bytes(text.held_out[:190])
    assert text.held_out_windows(context=10).shape == (8, 18)
    assert text.held_out_windows(context=193) is None


def test_batches_depend_on_seed_and_step_only():
    data = np.arange(1000, dtype=np.uint16).astype(np.uint8)
    batches = Batches(data, context=16, rows=8, extra=4, seed=3)
    assert batches(5).shape == (8, 20)
    assert batches(5).dtype == np.uint8
    assert np.array_equal(batches(5), Batches(data, 16, 8, 4, 3)(5))
    assert not np.array_equal(batches(5), batches(6))
    assert not np.array_equal(batches(5), Batches(data, 16, 8, 4, 4)(5))
    assert (np.diff(batches(5).astype(int), axis=1) % 256 == 1).all()


def test_batches_reach_both_ends_and_refuse_short_data():
    data = np.arange(21, dtype=np.uint8)
    rows = np.concatenate([Batches(data, 16, 8, 4)(step) for step in range(10)])
    assert set(rows[:, 0]) == {0, 1}
    with pytest.raises(ValueError, match="a window has 20 bytes"):
        Batches(data[:19], 16, 8, 4)
