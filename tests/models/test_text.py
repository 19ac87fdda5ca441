"""Where answers end: at every id that a checkpoint's files name."""

import json
from types import SimpleNamespace

import pytest
import torch

from mtp_harness.models.load import load_model, load_tokenizer
from mtp_harness.models.text import end_ids

from .byte_families import write_bytes


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        (None, None, [0]),
        (5, None, [0, 5]),
        ([5, 6], 7, [0, 5, 6, 7]),
        (None, [7, 0], [0, 7]),
    ],
)
def test_all_places_count(config, generation, ends):
    model = SimpleNamespace(config=SimpleNamespace(eos_token_id=config))
    if generation is not None:
        model.generation_config = SimpleNamespace(eos_token_id=generation)
    assert end_ids(model, SimpleNamespace(eos_token_id=0)) == ends
    assert end_ids(SimpleNamespace(main=model), SimpleNamespace(eos_token_id=None)) == [
        one for one in ends if one or generation == [7, 0]
    ]


def test_a_folder_s_generation_config_is_read(tmp_path):
    folder = write_bytes(tmp_path, "glm4_moe")
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [3, 7]}))
    model, tokenizer = load_model(folder, torch.float32), load_tokenizer(folder)
    assert end_ids(model, tokenizer) == sorted({3, 7, tokenizer.eos_token_id})
