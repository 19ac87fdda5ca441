"""Checkpoints with heads: importing this registers `mtp_llama` with transformers' Auto classes."""

from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.llama.mtp_llama import MTPLlamaConfig, MTPLlamaForCausalLM

__all__ = ["MTPLlamaConfig", "MTPLlamaForCausalLM", "MultiHeadModel"]
