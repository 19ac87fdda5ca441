"""The number of answers per problem and their sampling, from a task's metadata.

--metadata '{"n_samples": 200, "temperature": 0.8, "k": [1, 10, 100]}'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mtp_harness.harness.rules import as_number, as_whole, is_number

SUFFIX = "_sampled"
"""Suffix of a sampled pass@1, which separates it from a greedy one."""


@dataclass(frozen=True)
class NSamples:
    """One task's sampling: answers per problem, and the k of every pass@k."""

    n_samples: int = 1
    temperature: float = 0.0  # 0: greedy
    ks: tuple[int, ...] = (1,)
    top_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples={self.n_samples}; expected at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}; expected 0 (greedy) or more")
        if self.n_samples > 1 and self.temperature == 0:
            raise ValueError(
                f"n_samples={self.n_samples} of greedy decoding would give "
                f"{self.n_samples} times the same answer: give a temperature above 0, such as 0.8"
            )
        if bad := [k for k in self.ks if not 1 <= k <= self.n_samples]:
            raise ValueError(
                f"k={bad[0]} with n_samples={self.n_samples}; expected 1 to n_samples: "
                "sample more answers or leave that k out"
            )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Read the metadata; None if it has no sampling."""
        if not metadata.keys() & {"n_samples", "temperature", "k"}:
            return None
        given, top_p, top_k = metadata.get("k", 1), metadata.get("top_p"), metadata.get("top_k")
        ks = given if isinstance(given, list | tuple) else [given]
        try:
            return cls(
                n_samples=_whole("n_samples", metadata.get("n_samples", 1)),
                temperature=_number("temperature", metadata.get("temperature", 0.0)),
                ks=tuple(_whole("k", k) for k in ks),
                top_p=None if top_p is None else _number("top_p", top_p),
                top_k=None if top_k is None else _whole("top_k", top_k),
            )
        except TypeError as error:
            raise ValueError(
                f"metadata {dict(metadata)!r} is not sampling ({error}); expected such as "
                '{"n_samples": 200, "temperature": 0.8, "k": [1, 10, 100]}'
            ) from None

    def generation_kwargs(self) -> dict[str, Any]:
        """Return the harness's arguments for sampling."""
        if self.temperature == 0:
            return {"do_sample": False}
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {"do_sample": True} | {k: v for k, v in given.items() if v is not None}


def _whole(name: str, value: Any) -> int:
    number = as_whole(value)
    if type(number) is not int:
        raise TypeError(f"{name}={value!r} is not a whole number")
    return number


def _number(name: str, value: Any) -> float:
    number = as_number(value)
    if not is_number(number):
        raise TypeError(f"{name}={value!r} is not a number")
    return float(number)
