"""Your own model with sequential modules, as in DeepSeek-V3.

    cd examples
    lm_eval --model mtp --tasks humaneval_mtp --limit 2 \
        --model_args loader=sequential_toy:load,tokenizer=mtp-bytes-n4

Module i reads state i-1 and the embedding of the token at t+i-1, and has its own attention.
"""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from mtp_harness.models.interface import LayerShape, MultiHeadModel
from mtp_harness.models.llama.blocks import run_blocks


class SequentialToy(MultiHeadModel):
    n_future_tokens = 4
    max_positions = 4096
    sequential = True

    def __init__(self, vocab_size=256, width=32):
        super().__init__()
        self.config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=width, intermediate_size=64, num_attention_heads=2
        )
        self.config._attn_implementation = "sdpa"
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(LlamaDecoderLayer(self.config, i) for i in range(2))
        self.rotary = LlamaRotaryEmbedding(self.config)
        self.mix = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3))
        self.modules_ = nn.ModuleList(LlamaDecoderLayer(self.config, 2 + i) for i in range(3))
        self.unembed = nn.Linear(width, vocab_size, bias=False)

    def layer_shapes(self, heads):
        return [LayerShape(2, 16)] * (1 + heads)

    def trunk(self, tokens, positions=None, cache=None):
        return run_blocks(self.blocks, self.embed(tokens), self.rotary, positions, cache)

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        if offset == 1:
            return states
        mixed = self.mix[offset - 2](torch.cat([states, self.embed(tokens)], -1))
        return run_blocks([self.modules_[offset - 2]], mixed, self.rotary, positions, cache)

    def logits(self, offset, states):
        return self.unembed(states)


def load(pretrained):
    torch.manual_seed(0)
    return SequentialToy()
