"""Small models for decoding tests, and the plain decoding they are compared with."""

import math

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.families import FAMILIES
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.models.sequential import Modules, SequentialModel, modules_config

from ..models.family_checkpoints import trunk
from ..scripts import EXAMPLES, script


def example(name, vocab_size=10):
    """Return the toy model of examples/NAME.py in float64 with weights large enough to vary."""
    module = script(EXAMPLES / f"{name}.py")
    classes = {"parallel_toy": "ParallelToy", "sequential_toy": "SequentialToy"}
    torch.manual_seed(0)
    return lively(getattr(module, classes[name])(vocab_size))


def long_sequential_toy(n):
    """Return the sequential toy with more modules, so that prompts are much shorter than drafts."""
    toy = example("sequential_toy")
    toy.n_future_tokens = n
    width = toy.config.hidden_size
    toy.mix = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(n - 1))
    toy.modules_ = nn.ModuleList(LlamaDecoderLayer(toy.config, 2 + i) for i in range(n - 1))
    return lively(toy)


def lively(model, gain=3.0):
    """Scale the matrices up, so that greedy text wanders instead of repeating one token."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, gain / math.sqrt(parameter.shape[1]))
    return model.double().eval()


def unsure(toy):
    """Scale a toy's logits to a deviation of 1, so that sampling has something to choose from."""
    unembedding = toy.main.lm_head if isinstance(toy, SequentialModel) else toy.unembed
    with torch.no_grad():
        unembedding.weight.div_(toy.next_token_logits(torch.tensor(prompts(1, 10))).std())
    return toy


def random_llama(n, seed=0, vocab_size=10, replicated=False):
    """Return a small Llama with n heads; few tokens, so that drafts are right by chance."""
    torch.manual_seed(seed)
    config = MTPLlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n + 2,
        num_attention_heads=4,
        num_key_value_heads=2,
        n_future_tokens=n,
        replicated_unembeddings=replicated,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return lively(MTPLlamaForCausalLM(config))


def hybrid(family, n_modules=1, vocab_size=10):
    """Return a small model of a family on a trunk of linear and of full attention."""
    kinds = ["linear_attention", "full_attention"]
    main = trunk(family, vocab_size=vocab_size, num_hidden_layers=2, layer_types=kinds)
    row = FAMILIES[family]
    modules = Modules(modules_config(main.config, n_modules), main.get_decoder(), len(kinds))
    for parameter in modules.parameters():
        if parameter.ndim == 3:  # experts, which transformers leaves as memory is
            parameter.data.normal_(0, 0.3)
    return lively(SequentialModel(main, modules, row))


class Alphabet(MultiHeadModel):
    """Writes "abcdef...": after x comes x + 1, and head k knows that x + k comes at offset k."""

    n_future_tokens = 4
    max_positions = 4096

    def __init__(self):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        return tokens[..., None].double()

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        right = (states[..., 0].long() + offset) % 256
        return nn.functional.one_hot(right, 256).double()


class Scripted(MultiHeadModel):
    """A model whose drafts are replaced, so that every step verifies a wanted number of them.

    Its own heads run all the same, and `seen` remembers the logits they gave:
    {(row, position, offset): logits}. To know the position behind a state, states carry two more
    columns: row and position. A row is found by the slot that its prompt was put into.
    """

    def __init__(self, model, prompts, texts, wanted):
        """Bind a model.

        Args:
            model: the model.
            prompts: per row, no two equal.
            texts: per row, prompt and greedy answer.
            wanted: (row, position t) -> how many drafts made at t are right; the next is wrong.
        """
        super().__init__()
        self.model, self.texts, self.wanted = model, texts, wanted
        self.prompts = prompts
        self.row_of_slot = {}
        self.n_future_tokens = model.n_future_tokens
        self.sequential, self.reused = model.sequential, model.reused
        self.seen = {}

    max_positions = 4096
    n_future_tokens = 0  # set per instance

    def layer_shapes(self, heads):
        return self.model.layer_shapes(heads)

    def trunk(self, tokens, positions=None, cache=None):
        if cache is not None and cache.in_prompts:  # prompts
            for slot, prompt, at in zip(self.slots(cache), tokens, positions, strict=True):
                prompt = prompt[at < cache.trash].tolist()
                self.row_of_slot[slot] = self.prompts.index(prompt)
        return self.model.trunk(tokens, positions, cache)

    def slots(self, cache):
        return (cache.places.view(len(cache.positions), -1)[:, 0] // (cache.trash + 1)).tolist()

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        if self.sequential and offset > 1:
            states = states[..., :-2]
        out = self.model.head(offset, states, tokens, positions, cache)
        if cache is None:  # asked for its width alone
            return nn.functional.pad(out, (0, 2))
        rows = torch.tensor([self.row_of_slot.get(slot, 0) for slot in self.slots(cache)])
        rows = rows[:, None].expand_as(positions)
        return torch.cat([out, torch.stack([rows, positions], -1).double()], -1)

    def draft(self, row, position, offset):
        """Return the token that head `offset` (2..n) at `position` shall draft."""
        text, right = self.texts[row], self.wanted(row, position) >= offset - 1
        token = text[position + offset] if position + offset < len(text) else 0
        return token if right else (token + 1) % 5

    def logits(self, offset, states):
        true = self.model.logits(offset, states[..., :-2])
        places = states[..., -2:].long().reshape(-1, 2).clone()
        if self.reused:  # its position goes on with each draft
            places[:, 1] -= max(0, offset - 2)
        places = places.tolist()
        for (row, position), values in zip(places, true.reshape(-1, true.shape[-1]), strict=True):
            self.seen[row, position, offset] = values
        if offset == 1:
            return true
        drafts = [self.draft(row, position, offset) for row, position in places]
        one_hot = nn.functional.one_hot(torch.tensor(drafts), true.shape[-1])
        return one_hot.reshape(true.shape).double()


class Timetable(MultiHeadModel):
    """What comes depends on the position alone, so that all heads know its true distribution."""

    n_future_tokens = 4
    max_positions = 4096
    shared_unembedding = False

    def __init__(self, vocab_size=7, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(97, vocab_size, generator=generator, dtype=torch.float64)
        self.table = nn.Parameter(2 * table)

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        if positions is None:
            positions = torch.arange(tokens.shape[1])[None]
        return positions[..., None].double()

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        return self.table[(states[..., 0].long() + offset) % len(self.table)]


class LearnedPositions(MultiHeadModel):
    """A model that knows 64 positions and fails on any other, as a table of embeddings does."""

    n_future_tokens = 3
    max_positions = 64

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(10, 8)
        self.positions = nn.Embedding(self.max_positions, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 10) for _ in range(3))
        lively(self)

    def layer_shapes(self, heads):
        return []

    def trunk(self, tokens, positions=None, cache=None):
        if positions is None:
            positions = torch.arange(tokens.shape[1])[None]
        return self.tokens(tokens) + self.positions(positions)

    def head(self, offset, states, tokens=None, positions=None, cache=None):
        return states

    def logits(self, offset, states):
        return self.heads[offset - 1](states)


def letters(tokens):
    """Decode tokens of a small vocabulary: a, b, c, ..."""
    return "".join(chr(ord("a") + token) for token in tokens)


@torch.no_grad()
def plain_greedy(model, prompt, max_new_tokens):
    """Decode by the definition: the whole prefix through head 1, no cache, one token at a time."""
    tokens = []
    while len(tokens) < max_new_tokens:
        logits = model.next_token_logits(torch.tensor([prompt + tokens]))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def cut(tokens, eos, until, budget, to_text):
    """Return the shortest prefix of `tokens` that ends an answer, and what ended it."""
    for count in range(1, len(tokens) + 1):
        prefix = tokens[:count]
        if prefix[-1] in eos:
            return prefix, "eos"
        if any(stop in to_text(prefix) for stop in until):
            return prefix, "stop"
        if count == budget:
            return prefix, "length"
    raise AssertionError("the text is shorter than the budget")


def prompts(count, vocab_size, seed=1, longest=23):
    """Return random prompts of 1 .. `longest` tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(1, vocab_size, (n,), generator=generator).tolist() for n in lengths]
