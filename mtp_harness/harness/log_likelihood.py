"""Log-likelihoods and chat templates: those of `HFLM`, with head 1, and with errors in words."""

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from torch import Tensor

from mtp_harness.errors import UserError, user_errors
from mtp_harness.harness.generation import Generator
from mtp_harness.harness.ranks import RankedLM
from mtp_harness.models.interface import MultiHeadModel

_log = logging.getLogger(__name__)


class Head1LM(RankedLM):
    """Answers log-likelihood requests by head 1, whatever `draft_heads` says."""

    _name: str  # of the checkpoint, as the user gave it
    _generator: Generator | None = None  # none for an ordinary model
    _said_head_1 = _said_bos = False

    def loglikelihood(self, requests: list[Instance], *args: Any, **kwargs: Any) -> Any:
        """Answer log-likelihood requests, as `HFLM` does."""
        if self.enable_thinking:
            tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
            raise UserError(
                f"enable_thinking=True does not work with log-likelihood tasks ({tasks}): leave "
                "it out, or name tasks that generate."
            )
        self._note(requests)
        return super().loglikelihood(requests, *args, **kwargs)

    def loglikelihood_rolling(self, requests: list[Instance], *args: Any, **kwargs: Any) -> Any:
        """Answer requests for rolling log-likelihoods (whole documents), as `HFLM` does."""
        self._note(requests)
        if not self._said_bos and self.tok_encode("a")[:1] == [self.prefix_token_id]:
            _log.warning(
                "rolling log-likelihoods score one token more than each text has: the BOS that the "
                "tokenizer adds, after another BOS, as with --model hf; to leave it out, set "
                "add_bos_token=False"
            )
            self._said_bos = True
        return super().loglikelihood_rolling(requests, *args, **kwargs)

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(self.model, MultiHeadModel):
            logits: Tensor = super()._model_call(inps, *args, **kwargs)
            return logits
        with torch.no_grad():
            return self.model.next_token_logits(inps)  # [B, T, V]

    def _loglikelihood_tokens(self, *args: Any, **kwargs: Any) -> Any:
        k = self._generator.k if self._generator else 1
        if k > 1 and not self._said_head_1:
            _log.warning("log-likelihoods use head 1 only; draft_heads=%d has no effect", k)
            self._said_head_1 = True
        return super()._loglikelihood_tokens(*args, **kwargs)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the tokenizer's chat template; see `HFLM`."""
        if chat_template:
            self._require_chat_template()
        with using("the chat template", ValueError):
            template: str | None = super().chat_template(chat_template)
        return template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the text that the model reads; see `HFLM`."""
        self._require_chat_template()
        with using("the chat template", ValueError, TypeError, TemplateError):
            text: str = super().apply_chat_template(chat_history, add_generation_prompt)
        return text

    def _require_chat_template(self) -> None:
        if not self.tokenizer.chat_template:
            raise UserError(
                f"--apply_chat_template: the tokenizer of {self._name} has no chat template, "
                "expected one in its folder (chat_template.jinja): leave the flag out, or add the "
                "file."
            )


def using(what: str, *kinds: type[Exception]) -> AbstractContextManager[None]:
    """Report in one sentence that transformers cannot use something that the user gave."""
    suffix = "): correct it, or leave it out."
    return user_errors(*kinds, prefix=f"transformers cannot use {what} (", suffix=suffix)
