"""Several runs of one checkpoint in one process: the last opened model stays open.

The processes of a suite use it (`keep`), because loading a large checkpoint takes minutes. Runs
that differ only in decoding get the same model; a run with another type or place of the weights
must not share the process.
"""

from typing import Any

from mtp_harness.models.load import DEFAULT_MODEL, Opened, n_future_tokens, open_model

_kept: dict[tuple[object, ...], Opened] = {}
_keeping: list[bool] = [False]


def keep() -> None:
    """Make `open_kept` return the last opened model again, from now on."""
    _keeping[0] = True


def open_kept(
    pretrained: str | None, loader: str | None, *, heads: int | None, **how: Any
) -> Opened:
    """Open a model as `open_model` does, or return the open one.

    The number of heads is that of `n_future_tokens`, so that runs with fewer drafts share a model.
    """
    n = None
    if not loader and (heads or _keeping[0]):
        n = n_future_tokens(pretrained or DEFAULT_MODEL, heads, how.get("drafter"))
    if not _keeping[0]:
        return open_model(pretrained, loader, heads=n, **how)
    asked = (pretrained, loader, n, *sorted(how.items()))
    if asked not in _kept:
        _kept.clear()  # first, so that there are never two in memory
        _kept[asked] = open_model(pretrained, loader, heads=n, **how)
    return _kept[asked]
