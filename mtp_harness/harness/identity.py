"""The identity of a model: for `config.mtp` of the results, and for the cache of `--use_cache`.

The harness's keys in the file of `--use_cache` do not say which model gave an answer. The first run
stores the model's identity in the file; a run with another identity is refused, and so is a file
whose answers have no known identity.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from lm_eval.api.model import CacheHook

from mtp_harness.errors import UserError
from mtp_harness.harness.generating import ORDINARY_RULE, GeneratingLM
from mtp_harness.harness.progress import totals
from mtp_harness.models import provenance
from mtp_harness.models.checkpoints.layout import Layout
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.load import drafter_place, is_local, resolve

SCHEMA = 1
"""Version of `config.mtp` in the results; raised when older readers would misread it."""

OWNER = "mtp_harness: whose answers these are"
"""Key of the identity in the file; the harness's own keys are hashes."""

_HOW = frozenset(
    "batch_size device dtype label logits_cache max_batch_size max_cpu_memory max_length "
    "max_memory_per_gpu offload_folder parallelize".split()
)
"""Model arguments that answers do not depend on, or whose resolved value the identity holds."""


class IdentifiedLM(GeneratingLM):
    """Describes the model and what it did."""

    _layout: Layout | None  # None with a loader
    _loader: str | None
    _drafter: str | None  # place of heads trained apart
    _place: str  # a folder (also of a fetched model), or the hub name of an ordinary model
    _checkpoint: dict[str, str | int | None]  # the user's label, training tokens, step and seed
    _arguments: dict[str, Any]  # of `HFLM`

    def get_model_info(self) -> dict[str, Any]:
        """Return what goes into the results' `config`; `mtp` holds settings, totals, provenance."""
        identity = self.identity()
        if is_local(self.pretrained) or self._loader:
            info: dict[str, Any] = {
                "model_num_parameters": sum(p.numel() for p in self.model.parameters()),
                "model_dtype": self.model.dtype,
                "model_revision": self.revision,
                "model_sha": identity["weights_sha256"] or "",
            }
        else:
            info = super().get_model_info()
        local = is_local(self.pretrained)
        recorded = provenance.trained(self.checkpoint_folder) if local else {}
        mtp = {
            "schema": SCHEMA,
            **{k: recorded.get(k) if v is None else v for k, v in self._checkpoint.items()},
            **identity,
            **self._decoding(),
            "vocab_size": self.vocab_size,
            "device": str(self.device),
            "devices": sorted({str(p.device) for p in self.model.parameters()}),
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "totals": totals(self._records, self._spent),
            "probes": self._probed,
            **provenance.environment(self.device),
        }
        return {**info, "mtp": mtp}

    @property
    def checkpoint_folder(self) -> Path:
        """The checkpoint's path, if it is a local folder."""
        return Path(resolve(self._place))

    def identity(self) -> dict[str, Any]:
        """Return what a log-likelihood or an answer depends on, apart from decoding."""
        heads = isinstance(self.model, MultiHeadModel)
        local = is_local(self._place) or self._loader
        return {
            "pretrained": self.pretrained,
            "layout": self._layout.name if self._layout else "loader",
            "loader": self._loader,
            "weights_sha256": provenance.weights_sha256(self.checkpoint_folder) if local else None,
            **self._drafter_identity(),
            "n_future_tokens": self.model.n_future_tokens if heads else 1,
            "heads": ("sequential" if self.model.sequential else "parallel") if heads else "none",
            **({"reading": self.model.reading} if heads and self.model.sequential else {}),
            **({"draft_vocabulary": own} if (own := heads and self.model.draft_vocabulary) else {}),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_length": self.max_length,
        }

    def _drafter_identity(self) -> dict[str, Any]:
        """Return the identity of the drafter; empty if the heads are the checkpoint's own."""
        if self._drafter is None:
            return {}
        digest = provenance.weights_sha256(drafter_place(self._drafter))
        return {"drafter": self._drafter, "drafter_sha256": digest}

    def _decoding(self) -> dict[str, Any]:
        if self._generator is None:
            return {"draft_heads": 1, "draft_rule": ORDINARY_RULE}
        rules = sorted({record.draft_rule for record in self._records})
        return {**self._generator.settings(), "draft_rule": "; ".join(rules) or None}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Use the cache of `--use_cache`, if it is empty or holds this model's answers.

        Raises:
            UserError: it holds answers of another or an unknown model.
        """
        cache = cache_hook.dbdict
        if cache is not None and OWNER not in cache and not cache:
            cache[OWNER] = self._owner()
        elif cache is not None:
            _require_owner(cache.get(OWNER), self._owner(), cache.filename)
        super().set_cache_hook(cache_hook)

    def _owner(self) -> dict[str, Any]:
        """Return everything that answers depend on, as JSON values."""
        identity = self.identity()
        stats, hashes = _stats(self.checkpoint_folder), [identity["weights_sha256"]]
        if self._drafter:
            stats += _stats(drafter_place(self._drafter))
            hashes.append(identity["drafter_sha256"])
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        found = {
            **identity,
            **(self._generator.asked() if self._generator else {}),
            **{name: str(value) for name, value in self._arguments.items() if name not in _HOW},
            # Over a gigabyte, weights are not hashed: their files' names, sizes and times are used.
            "files": None if all(hashes) else stats,
            "commit": getattr(self.config, "_commit_hash", None),
            "tokenizer_sha256": hashlib.sha256(vocabulary.encode()).hexdigest(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def _stats(place: Path) -> list[list[Any]]:
    """Return name, size and time of a file, or of the files in a folder."""
    files = [place] if place.is_file() else sorted(f for f in place.glob("*") if f.is_file())
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _require_owner(there: dict[str, Any] | None, mine: dict[str, Any], file: str) -> None:
    if not there:
        raise UserError(
            f"--use_cache: {file} holds answers of an unknown model, expected this model's: name "
            "another file, or remove it."
        )
    names = sorted({*there, *mine})
    if differing := [name for name in names if there.get(name) != mine.get(name)]:
        shown = ", ".join(
            f"{name} ({str(there.get(name))[:60]} there, {str(mine.get(name))[:60]} now)"
            for name in differing[:3]
        )
        raise UserError(
            f"--use_cache: {file} holds the answers of another model or of other settings, "
            f"differing in {shown}: name another file, or remove it."
        )
