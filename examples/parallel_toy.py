"""Your own model with parallel heads, for `--model_args loader=parallel_toy:load,...`.

    cd examples
    lm_eval --model mtp --tasks humaneval_mtp --limit 2 \
        --model_args loader=parallel_toy:load,tokenizer=mtp-bytes-n4

All heads read the trunk's states z; here each is one linear layer (the paper's "linear" heads).
"""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from mtp_harness.models.interface import LayerShape, MultiHeadModel
from mtp_harness.models.llama.blocks import run_blocks


class ParallelToy(MultiHeadModel):
    n_future_tokens = 3
    max_positions = 4096

    def __init__(self, vocab_size=256, width=32):
        super().__init__()
        self.config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=width, intermediate_size=64, num_attention_heads=2
        )
        self.config._attn_implementation = "sdpa"
        self.embed = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(LlamaDecoderLayer(self.config, i) for i in range(2))
        self.rotary = LlamaRotaryEmbedding(self.config)
        self.heads = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.unembed = nn.Linear(width, vocab_size, bias=False)

    def layer_shapes(self, heads):
        return [LayerShape(2, 16)] * 2  # the heads have no keys and values in the cache

    def trunk(self, tokens, positions=None, cache=None):
        return run_blocks(self.blocks, self.embed(tokens), self.rotary, positions, cache)

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states + self.heads[offset - 1](states)

    def logits(self, offset, states):
        return self.unembed(states)


def load(pretrained):
    torch.manual_seed(0)
    return ParallelToy()
