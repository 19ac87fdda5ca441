"""Choosing tokens: temperature, top-k, top-p, and noise that depends only on its key.

A token is sampled as argmax(log p + g), p the warped distribution and g Gumbel noise (which samples
exactly from p). Head 1's choice and a draft for the same position use the same g, and g is a
function of (seed, task, document, repeat, position, token) alone. So a text is the same for every
number of draft heads, batch size and order of requests, and a draft is verified when it equals
head 1's choice, as in greedy decoding, where g = 0.

The noise is counter-based: `draw(seed, i)` is the i-th number of the splitmix64 stream that starts
at `seed`, computed without those before it.

    row_key(seed, task, document, repeat) ──draw(·, position)──▶ ──draw(·, token)──▶ 64 bits ──▶ g

Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", with the
constants of Vigna's splitmix64; Gumbel-max after Maddison, Tarlow, Minka 2014. Both are stated in
int64 torch operations: they wrap around, and `>>` is arithmetic, so shifts are masked.
"""

import hashlib
import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_TEMPERATURE = 1e-6
"""Below it, logits divided by the temperature could exceed float32."""

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; greedy if the temperature is 0, whatever the other values."""

    temperature: float = 0.0  # or at least `MIN_TEMPERATURE`
    top_k: int = 0  # only the k most likely tokens, and those that tie with the last; 0: all
    # Of these, renormalised, only the fewest likely tokens that sum to at least p; 1: all.
    top_p: float = 1.0

    def __post_init__(self) -> None:
        hot = MIN_TEMPERATURE <= self.temperature < math.inf
        if not (self.temperature == 0 or hot):
            raise ValueError(
                f"temperature={self.temperature}, expected 0 (greedy) or a number from "
                f"{MIN_TEMPERATURE:g} up; choose one of those."
            )
        if self.top_k < 0 or self.top_k != int(self.top_k):
            raise ValueError(
                f"top_k={self.top_k}, expected a whole number from 0 (all tokens) up; choose one "
                "of those."
            )
        if not 0 <= self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p}, expected a number from 0 to 1 (all tokens); choose one of "
                "those."
            )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is chosen, without noise."""
        return self.temperature == 0


def row_key(seed: int, task: str, document: int, repeat: int) -> int:
    """Return the key of one answer's noise, a signed 64-bit integer.

    The same on every machine and in every process; document and repeat are indices within the task
    and within the document's answers.
    """
    named = json.dumps([seed, task, document, repeat]).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), "little", signed=True)


def gumbel(keys: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """Return Gumbel noise, finite float64 [B, T, V].

    Element-wise: a row's noise does not depend on the other rows.

    Args:
        keys: int64 [B], one `row_key` per row.
        positions: int64 [B, T], absolute positions of the tokens to choose.
        vocab: V.
    """
    tokens = torch.arange(vocab, device=keys.device)
    bits = _draw(_draw(keys[:, None], positions)[..., None], tokens)  # [B, T, V]
    # A float64 holds exactly 53 bits. Zero, which would give infinity, is read as one.
    uniform = _shifted(bits, 11).clamp(min=1).double() * 2.0**-53  # within (0, 1)
    return -torch.log(-torch.log1p(-uniform))


def warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the log-probabilities that tokens are sampled with, -inf where they are excluded.

    The order, and the treatment of ties, is that of transformers' `generate`: temperature, top-k
    (ties with the k-th stay), top-p over the rest. If top-p takes only some of several equal
    tokens, which is left open there, it takes the last.

    Logits [..., V] of half precision are computed in float32; the temperature is above 0.
    """
    assert not sampling.greedy, "greedy choices have no distribution"
    scores = (logits.float() if logits.dtype in _HALF else logits) / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        kth = scores.topk(sampling.top_k).values[..., -1:]
        scores = scores.masked_fill(scores < kth, -math.inf)
    if sampling.top_p < 1:
        ascending, order = scores.sort(dim=-1, stable=True)
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        unlikely[..., -1] = False  # the most likely token always stays
        scores = scores.masked_fill(unlikely.scatter(-1, order, unlikely), -math.inf)
    return scores.log_softmax(-1)


def choose(logits: Tensor, sampling: Sampling, keys: Tensor, positions: Tensor) -> Tensor:
    """Return the tokens chosen from logits [B, T, V], int64 [B, T].

    `keys` [B] and `positions` [B, T] are those of `gumbel`; greedy choices ignore them.
    """
    if sampling.greedy:
        return logits.argmax(-1)
    noise = gumbel(keys, positions, logits.shape[-1])
    return (warp(logits, sampling) + noise).argmax(-1)


def _draw(seeds: Tensor, index: Tensor) -> Tensor:
    """Return number `index` (from 0) of the splitmix64 streams that start at `seeds`, int64."""
    z = seeds + (index + 1) * _GOLDEN
    z = (z ^ _shifted(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shifted(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shifted(z, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift int64 to the right, filling with zeros."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
