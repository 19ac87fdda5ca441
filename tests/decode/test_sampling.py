"""Noise that is uniform, independent and the same everywhere; choices that follow the softmax."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mtp_harness.decode import sampling
from mtp_harness.decode.sampling import Sampling, choose, gumbel, row_key, warp

N = 1 << 18


def assert_fits(observed, expected):
    """Pearson's chi-squared, 5 standard deviations to either side: too even is wrong as well.

    Args:
        observed: counts [cells].
        expected: probabilities [cells], adding up to 1.
    """
    assert not observed[expected == 0].any(), "an outcome that cannot be"
    observed, expected = observed[expected > 0].double(), expected[expected > 0].double()
    expected = expected * observed.sum()
    rare = expected < 20  # pooled into one cell
    observed = torch.cat([observed[~rare], observed[rare].sum(0, keepdim=True)])
    expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True)])
    statistic = float(((observed - expected) ** 2 / expected.clamp(min=1)).sum())
    df = len(expected) - 1 - int(not rare.any())
    if df == 0:
        assert statistic == 0
        return
    # Wilson and Hilferty: the cube root of chi-squared / df is close to normal.
    z = ((statistic / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))
    assert abs(z) < 5, f"chi-squared {statistic:.0f} with {df} degrees of freedom"


def counts(cells, size):
    return torch.bincount(cells, minlength=size)


def even(size):
    return torch.full((size,), 1 / size, dtype=torch.float64)


# The noise

KEYS = torch.tensor([row_key(0, "task", document, 0) for document in range(4)])
SERIES = {
    "tokens": lambda i: gumbel(KEYS[i : i + 1], torch.tensor([[7 + i]]), N).flatten(),
    "positions": lambda i: gumbel(KEYS[i : i + 1], torch.arange(N)[None], 1).flatten(),
    "neighbouring keys": lambda i: gumbel(
        torch.arange(i * N, (i + 1) * N), torch.full((N, 1), i), 1
    ).flatten(),
    "repeats": lambda i: gumbel(
        torch.tensor([row_key(0, "task", i, repeat) for repeat in range(N)]),
        torch.full((N, 1), 3),
        1,
    ).flatten(),
}


def uniform(noise):
    """Undo the transform: exp(-exp(-g)) is uniform if g is Gumbel noise."""
    return (-(-noise).exp()).exp()


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
def test_noise_is_gumbel(series):
    for i in range(2):
        cells = (uniform(series(i)) * 1024).long()
        assert_fits(counts(cells, 1024), even(1024))


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES)
@pytest.mark.parametrize("lag", [1, 2, 32])
def test_neighbours_are_independent(series, lag):
    u = uniform(series(0))
    before, after = u[:-lag], u[lag:]
    # Of each number one pair only: pairs that share a member are not independent.
    chosen = (torch.arange(len(before)) // lag) % 2 == 0
    pairs = (before[chosen] * 24).long() * 24 + (after[chosen] * 24).long()
    assert_fits(counts(pairs, 24 * 24), even(24 * 24))
    correlation = torch.corrcoef(torch.stack([before, after]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(len(before))


def test_series_are_independent_of_each_other():
    for one, other in itertools.combinations([f(0) for f in SERIES.values()], 2):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 5 / math.sqrt(N)


def test_noise_repeats_nothing():
    positions, tokens = 256, 256
    noise = gumbel(KEYS, torch.arange(positions).expand(4, -1), tokens)
    # 2^18 of 2^53 numbers: a repetition among them has a chance of 4e-6.
    assert len(noise.unique()) == 4 * positions * tokens


MASK = 2**64 - 1


def draw(seed, index):
    """Number `index` of a splitmix64 stream, in Python's unbounded integers."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def expected_noise(key, position, token):
    bits = draw(draw(key & MASK, position), token) >> 11
    return -math.log(-math.log1p(-max(bits, 1) / 2**53))


def test_reference_stream_is_splitmix64():
    """The numbers that implementations of splitmix64 are commonly checked with, seed 1234567."""
    assert [draw(1234567, i) for i in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


CORNERS = [0, 1, -1, 2**63 - 1, -(2**63), row_key(1234, "humaneval_mtp", 17, 3)]


def test_noise_is_the_reference_streams():
    positions = [0, 1, 4095, 2**40]
    noise = gumbel(torch.tensor(CORNERS), torch.tensor(positions).expand(len(CORNERS), -1), 50)
    expected = [[[expected_noise(k, p, t) for t in range(50)] for p in positions] for k in CORNERS]
    torch.testing.assert_close(
        noise, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-14
    )


# By `expected_noise` above, written down: a change here changes every sampled text.
STORED = {
    (0, 0, 0): -0.055285579698789625,
    (-1, 4095, 31999): 0.33617784177795357,
    (1234567890123456789, 12, 255): 0.12764512197099084,
}


@pytest.mark.parametrize("place", STORED)
def test_noise_is_what_it_always_was(place):
    key, position, token = place
    noise = gumbel(torch.tensor([key]), torch.tensor([[position]]), token + 1)[0, 0, -1]
    assert noise.item() == pytest.approx(STORED[place], rel=1e-14)
    assert expected_noise(*place) == pytest.approx(STORED[place], rel=1e-14)


def test_noise_is_finite_at_the_ends_of_its_range(monkeypatch):
    ends = torch.tensor([0, 1, 2**11 - 1, 2**11, -1, -(2**11), 2**63 - 1, -(2**63)])
    monkeypatch.setattr(sampling, "_draw", lambda seeds, index: ends.expand(1, 1, -1))
    noise = gumbel(torch.tensor([0]), torch.tensor([[0]]), len(ends)).flatten()
    assert noise.isfinite().all()
    # The largest is that of the uniform number 2^-53, the smallest that of 1 - 2^-53.
    assert noise.max().item() == pytest.approx(53 * math.log(2))
    assert noise.min().item() == pytest.approx(-math.log(53 * math.log(2)))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_alone_gets_what_it_gets_in_a_batch(threads):
    """Bit for bit: vectorised and threaded kernels must not round differently by place."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        keys = torch.tensor([row_key(0, "task", 0, r) for r in range(7)])
        positions = torch.randint(0, 4096, (7, 5), generator=torch.Generator().manual_seed(0))
        for vocab in (1, 3, 256, 4001):
            noise = gumbel(keys, positions, vocab)
            for row, step in itertools.product(range(7), range(5)):
                alone = gumbel(
                    keys[row : row + 1], positions[row : row + 1, step : step + 1], vocab
                )
                assert torch.equal(alone[0, 0], noise[row, step])
            assert torch.equal(gumbel(keys, positions, vocab - 1), noise[..., :-1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rule", [Sampling(), Sampling(0.8), Sampling(0.8, 9, 0.9)])
def test_choices_do_not_depend_on_the_batch(rule):
    keys = torch.tensor([row_key(0, "task", 0, r) for r in range(7)])
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(0, 4096, (7, 5), generator=generator)
    logits = 3 * torch.randn(7, 5, 301, generator=generator)
    together = choose(logits, rule, keys, positions)
    for row, step in itertools.product(range(7), range(5)):
        place = (slice(row, row + 1), slice(step, step + 1))
        alone = choose(logits[place], rule, keys[place[0]], positions[place])
        assert alone == together[row, step]


@pytest.mark.parametrize("rule", [Sampling(), Sampling(0.8, 9, 0.9)])
def test_choice_is_one_graph(rule):
    """A decoding step captures it: nothing in it may ask the host, or depend on what it said."""
    compiled = torch.compile(choose, backend="eager", fullgraph=True)
    positions = torch.arange(12).reshape(4, 3)
    logits = torch.randn(4, 3, 33, generator=torch.Generator().manual_seed(0))
    for arguments in [(KEYS, positions), (KEYS.flip(0), positions + 5)]:
        expected = choose(logits, rule, *arguments)
        assert torch.equal(compiled(logits, rule, *arguments), expected)


# Keys


def test_key_is_the_same_in_another_process():
    code = "from mtp_harness.decode.sampling import row_key; print(row_key(3, 'tâche', 5, 7))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(found) == row_key(3, "tâche", 5, 7)


def test_key_depends_on_each_part_and_not_on_how_they_are_joined():
    parts = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
    parts += [
        (0, "a", 1, 10),
        (0, "a", 11, 0),
        (0, "a,1", 0, 0),
        (-1, "a", 0, 0),
        (2**70, "", 0, 0),
    ]
    keys = [row_key(*part) for part in parts]
    assert len(set(keys)) == len(parts)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert any(key < 0 for key in keys)


# The distribution

RULES = [
    Sampling(1.0),
    Sampling(0.5),
    Sampling(2.5),
    Sampling(1.0, top_k=3),
    Sampling(1.0, top_p=0.7),
    Sampling(0.7, top_k=3, top_p=0.8),
    Sampling(1.3, top_k=4, top_p=0.9),
    Sampling(1.0, top_k=1),
    Sampling(1.0, top_p=0.0),
]
LOGITS = [
    [1.2, -0.3, 0.4, 0.9, -1.5, 0.0],
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    [-2.0, 3.0, 0.5, 0.6, 1.0, -math.inf],
]


def enumerated(logits, rule):
    """The distribution by its definition, in plain Python; for logits without ties."""
    weights = {t: math.exp(x / rule.temperature) for t, x in enumerate(logits)}
    likely = sorted(weights, key=weights.get, reverse=True)[: rule.top_k or None]
    total = sum(weights[t] for t in likely)
    kept, mass = [], 0.0
    for token in likely:
        if kept and rule.top_p < 1 and mass >= rule.top_p:
            break
        kept.append(token)
        mass += weights[token] / total
    total = sum(weights[t] for t in kept)
    return [weights[t] / total if t in kept else 0.0 for t in range(len(logits))]


def assert_samples_softmax(rule):
    """Compare the joint distribution of 3 tokens, as one call verifies them, with enumeration."""
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    n = 60_000
    keys = torch.tensor([sampling.row_key(0, "task", 0, repeat) for repeat in range(n)])
    positions = torch.tensor([11, 12, 13]).expand(n, -1)
    a, b, c = sampling.choose(logits.expand(n, -1, -1), rule, keys, positions).T
    first, second, third = (
        torch.tensor(enumerated(row, rule), dtype=torch.float64) for row in LOGITS
    )
    joint = torch.einsum("a,b,c->abc", first, second, third).flatten()
    assert_fits(counts(36 * a + 6 * b + c, 216), joint)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_choices_follow_the_distribution(rule):
    assert_samples_softmax(rule)


def top_p_without_renormalisation(logits, rule):
    """A mistake: top-p over the probabilities before top-k."""
    scores = logits / rule.temperature
    ascending, order = scores.sort(dim=-1)
    unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - rule.top_p
    unlikely[..., -1] = False
    unlikely[..., : -rule.top_k] = True
    return scores.masked_fill(unlikely.scatter(-1, order, unlikely), -math.inf).log_softmax(-1)


def temperature_last(logits, rule):
    """A mistake: top-p sees the distribution at temperature 1."""
    kept = warp(logits, Sampling(1.0, rule.top_k, rule.top_p)).isfinite()
    return (logits / rule.temperature).masked_fill(~kept, -math.inf).log_softmax(-1)


def key_without_repeat(seed, task, document, repeat):
    """A mistake: all repeats get the same noise."""
    return row_key(seed, task, document, 0)


def noise_without_position(keys, positions, vocab):
    """A mistake: all positions get the same noise."""
    return gumbel(keys, torch.zeros_like(positions), vocab)


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("warp", top_p_without_renormalisation),
        ("warp", temperature_last),
        ("row_key", key_without_repeat),
        ("gumbel", noise_without_position),
    ],
)
def test_the_same_test_notices_mistakes(name, mistake, monkeypatch):
    rule = Sampling(0.7, top_k=3, top_p=0.8)
    assert_samples_softmax(rule)
    monkeypatch.setattr(sampling, name, mistake)
    with pytest.raises(AssertionError, match="chi-squared|cannot be"):
        assert_samples_softmax(rule)


def test_greedy_takes_the_most_likely_token_and_needs_no_noise():
    logits = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    chosen = choose(logits, Sampling(0, top_k=2, top_p=0.1), torch.empty(0), torch.empty(0))
    assert torch.equal(chosen, logits.argmax(-1))


def transformers_warp(logits, rule):
    scores = TemperatureLogitsWarper(float(rule.temperature))(None, logits)
    if rule.top_k:
        scores = TopKLogitsWarper(rule.top_k)(None, scores)
    if rule.top_p < 1:
        scores = TopPLogitsWarper(rule.top_p)(None, scores)
    return scores.log_softmax(-1)


@pytest.mark.parametrize("rule", [*RULES, Sampling(0.8, 40, 0.95), Sampling(0.2, 1000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_warp_is_transformers(rule, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(500, 97, generator=generator)).to(dtype)
    found, expected = warp(logits.reshape(50, 10, 97), rule), transformers_warp(logits, rule)
    assert found.dtype == dtype
    assert torch.equal(found.isfinite().reshape(500, 97), expected.isfinite())
    torch.testing.assert_close(found.reshape(500, 97), expected, rtol=0, atol=1e-6)
    # Which of equal tokens top-p keeps is open there (an unstable sort); how many is not.
    ties = torch.randint(0, 5, (500, 97), generator=generator).to(dtype)
    for case in (ties, torch.zeros_like(ties)):
        found, expected = (
            warp(case, rule).sort().values,
            transformers_warp(case, rule).sort().values,
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_of_equal_tokens_top_k_keeps_all_and_top_p_the_last():
    logits = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    assert warp(logits, Sampling(1, top_k=2)).isfinite().tolist() == [0, 1, 1, 1, 0]
    assert warp(logits, Sampling(1, top_p=0.5)).isfinite().tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = (3 * torch.randn(20, 97, generator=torch.Generator().manual_seed(0))).to(dtype)
    rule = Sampling(0.7, 40, 0.9)
    assert torch.equal(warp(logits, rule), warp(logits.float(), rule))


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_extreme_temperatures_give_numbers(temperature):
    logits = torch.tensor([[-1e4, 0.0, 1e4, 9999.0, -math.inf]])
    found = warp(logits, Sampling(temperature))
    assert not found.isnan().any() and found.exp().sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1, expected 0 (greedy) or a number from 1e-06 up"),
        ({"temperature": 1e-9}, "temperature=1e-09, expected 0 (greedy) or"),
        ({"temperature": math.inf}, "temperature=inf, expected 0 (greedy) or"),
        ({"temperature": math.nan}, "temperature=nan, expected 0 (greedy) or"),
        ({"top_k": -1}, "top_k=-1, expected a whole number from 0 (all tokens) up"),
        ({"top_k": 1.5}, "top_k=1.5, expected a whole number"),
        ({"top_p": 1.01}, "top_p=1.01, expected a number from 0 to 1 (all tokens)"),
        ({"top_p": -0.5}, "top_p=-0.5, expected a number from 0 to 1"),
        ({"top_p": math.nan}, "top_p=nan, expected a number from 0 to 1"),
    ],
)
def test_values_out_of_range_are_one_sentence(values, message):
    with pytest.raises(ValueError) as raised:
        Sampling(**values)
    assert str(raised.value).startswith(message) and str(raised.value).count(". ") == 0


def test_default_is_greedy():
    assert Sampling().greedy and not Sampling(0.1).greedy
