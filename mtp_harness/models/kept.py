"""Several runs of one checkpoint in one process: the model that was opened last stays open.

The processes of a suite ask for it (`keep`), because loading a large checkpoint takes minutes. Runs
that differ in decoding alone get the same model; a run that would change its weights' type or place
must not share the process.
"""

from typing import Any

from mtp_harness.models.load import DEFAULT_MODEL, Opened, n_future_tokens, open_model

_kept: dict[tuple[object, ...], Opened] = {}
_keeping: list[bool] = [False]


def keep() -> None:
    """From now on `open_kept` gives the model again that it opened last."""
    _keeping[0] = True


def open_kept(
    pretrained: str | None, loader: str | None, *, heads: int | None, **how: Any
) -> Opened:
    """Open a model as `open_model` does, or return the one that is open; see there.

    N is that of `n_future_tokens`, so that runs of a checkpoint with fewer drafts are of one model.
    """
    n = None
    if not loader and (heads or _keeping[0]):
        n = n_future_tokens(pretrained or DEFAULT_MODEL, heads, how.get("drafter"))
    if not _keeping[0]:
        return open_model(pretrained, loader, heads=n, **how)
    asked = (pretrained, loader, n, *sorted(how.items()))
    if asked not in _kept:
        _kept.clear()  # first, so that two are never in memory
        _kept[asked] = open_model(pretrained, loader, heads=n, **how)
    return _kept[asked]
