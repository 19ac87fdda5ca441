"""`SlotCache` against a dictionary that remembers what was written where."""

import pytest
import torch

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.interface import LayerShape

SHAPES = [LayerShape(1, 2), LayerShape(3, 4)]
SLOTS, LENGTH = 3, 12


def new_cache(dtype=torch.float64):
    return SlotCache(SHAPES, SLOTS, LENGTH, dtype, torch.device("cpu"))


def random_keys(layer, count, generator):
    size = (SLOTS, SHAPES[layer].n_kv_heads, count, SHAPES[layer].head_dim)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def random_windows(count, generator):
    """Yield positions [SLOTS, T] as decoding makes them.

    Rows stand apart, go on by fewer tokens than they wrote, or write to the trash column.
    """
    stands = torch.tensor([0, 4, 2])
    for _ in range(count):
        length = int(torch.randint(1, 4, (), generator=generator))
        positions = stands[:, None] + torch.arange(length)
        idle = torch.rand(SLOTS, generator=generator) < 0.3
        yield torch.where(idle[:, None], LENGTH, positions)
        taken = torch.randint(0, length + 1, (SLOTS,), generator=generator)
        stands = torch.where(idle, stands, (stands + taken).clamp(max=LENGTH - 3))


def test_returns_for_every_row_what_was_written_last():
    generator = torch.Generator().manual_seed(0)
    cache, written = new_cache(), {}
    for positions in random_windows(40, generator):
        width = int(positions[positions < LENGTH].max()) + 1 if (positions < LENGTH).any() else 1
        cache.at(positions, width)
        for layer in (0, 1):
            key = random_keys(layer, positions.shape[1], generator)
            keys, values = cache.update(key, -key, layer)
            for row in range(SLOTS):
                for at, position in enumerate(positions[row].tolist()):
                    written[layer, row, position] = key[row, :, at]
            assert keys.shape == (*key.shape[:2], width, key.shape[3])
            for row in range(SLOTS):
                for column in range(width):
                    expected = written.get((layer, row, column), torch.zeros(key[0, :, 0].shape))
                    assert torch.equal(keys[row, :, column], expected.double())
                    assert torch.equal(values[row, :, column], -expected.double())


def test_mask_shows_each_query_its_own_position_and_earlier_ones():
    cache = new_cache()
    cache.at(torch.tensor([[3, 4], [0, 1], [2, LENGTH]]), 5)
    rows = [
        ["####.", "#####"],
        ["#....", "##..."],
        ["###..", "#####"],  # a query at the trash column sees anything; nobody reads its result
    ]
    expected = torch.tensor([[[c == "#" for c in line] for line in row] for row in rows])
    assert torch.equal(cache.bias(torch.float32, 1) == 0, expected[:, None])


def test_trash_leaves_no_trace():
    cache = new_cache()
    generator = torch.Generator().manual_seed(1)
    everywhere = torch.arange(LENGTH).expand(SLOTS, -1)
    cache.at(everywhere, LENGTH)
    key = random_keys(1, LENGTH, generator)
    cache.update(key, key, 1)
    positions = torch.full((SLOTS, 2), LENGTH)
    positions[1] = torch.tensor([7, LENGTH])
    cache.at(positions, LENGTH)
    new = random_keys(1, 2, generator)
    keys, values = cache.update(new, new, 1)
    key[1, :, 7] = new[1, :, 0]
    assert torch.equal(keys, key) and torch.equal(values, key)


def test_unwritten_columns_are_zero():
    """Masked columns are multiplied by zero: a NaN in them would spread."""
    cache = new_cache()
    assert all(not stored.any() for stored in (*cache.keys, *cache.values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_the_models_type(dtype):
    cache = new_cache(dtype)
    cache.at(torch.zeros(SLOTS, 1, dtype=torch.int64), 1)
    key = torch.ones(SLOTS, 1, 1, 2, dtype=dtype)
    keys, values = cache.update(key, key, 0)
    assert keys.dtype == values.dtype == dtype


def test_states_stand_at_the_last_kept_token():
    """Here a state is the sum of the kept tokens; rows at the trash column keep theirs."""
    shapes = [LayerShape(1, 2), LayerShape(0, 0, states=((2,), (1, 3)))]
    cache = SlotCache(shapes, SLOTS, LENGTH, torch.bfloat16, torch.device("cpu"))
    assert [held.dtype for held in cache.states[1]] == [torch.float32] * 2

    def call(tokens):
        before = cache.held(1) or [torch.zeros(len(tokens), *size) for size in shapes[1].states]
        sums = torch.tensor(tokens).float().cumsum(1)

        def move(count):
            new = torch.where(count > 0, sums.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0], 0)
            for held in before:
                held += new.view(-1, *[1] * (held.ndim - 1))

        if cache.held(1) is None:
            move(cache.lengths())
            cache.settle(1, before)
        else:
            cache.settle_later(1, move)

    def held():
        return [int(held) for held in cache.states[1][0][:, 0]]

    cache.fill(torch.tensor([2, 0]), torch.tensor([[0, 1, 2], [0, LENGTH, LENGTH]]))
    assert cache.held(1) is None
    call([[5, 6, 7], [8, 100, 100]])
    assert held() == [8, 0, 18]
    kept = cache.states_of(2)
    cache.share(2, torch.tensor([1, 2]), 3)
    cache.at(torch.tensor([[1, 2], [3, 4], [LENGTH, LENGTH]]), 5)
    call([[1, 10], [2, 20], [3, 30]])
    assert held() == [8, 18, 18]  # until it is known what stays
    cache.keep(torch.tensor([1, 2, 2]))
    assert held() == [9, 40, 18]
    cache.keep(torch.tensor([2, 2, 2]))  # once is enough
    assert held() == [9, 40, 18]
    cache.restore(1, kept)
    assert held() == [9, 18, 18]
    cache.at(torch.tensor([[1], [3], [5]]), 5)
    call([[1], [2], [3]])  # and this call failed before `keep`
    cache.at(torch.tensor([[1], [3], [5]]), 5)
    cache.keep(torch.tensor([1, 1, 1]))
    assert held() == [9, 18, 18]
