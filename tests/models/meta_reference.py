"""The oracle: Meta's layout written and run from its description alone, in float64.

Nothing here comes from the package or from transformers: names, counting and rotary pairs are those
of the released `llama/model.py` as described in its README and in Gloeckle et al. 2024. One token
sequence, one attention head at a time, no cache.
"""

import json
import math

import torch

SMALL = {
    "dim": 32,
    "n_layers": 6,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 61,
    "multiple_of": 16,
    "norm_eps": 1e-5,
    "n_future_tokens": 4,
    "rope_theta": 10000.0,
}
ROWS_SPLIT = ("wq", "wk", "wv", "w1", "w3", "output")


def ffn_width(params):
    width = int(8 * params["dim"] / 3)
    if params.get("ffn_dim_multiplier"):
        width = int(width * params["ffn_dim_multiplier"])
    return math.ceil(width / params["multiple_of"]) * params["multiple_of"]


def block_names(params):
    """The blocks in the order of the description: all of `layers`, then `extra_heads`."""
    n = params.get("n_future_tokens", 1)
    stem = [f"layers.{i}" for i in range(params["n_layers"] - n + 1)]
    return stem + [f"extra_heads.{i}" for i in range(n - 1)]


def random_weights(params, seed=0):
    """Float32 weights that keep states and logits at the order of one."""
    generator = torch.Generator().manual_seed(seed)
    dim, width = params["dim"], ffn_width(params)
    head_dim = dim // params["n_heads"]
    keys = (params.get("n_kv_heads") or params["n_heads"]) * head_dim

    def matrix(rows, columns):
        return torch.randn(rows, columns, generator=generator) / columns**0.5

    def gain():
        return 1 + 0.2 * torch.randn(dim, generator=generator)

    weights = {"tok_embeddings.weight": torch.randn(params["vocab_size"], dim, generator=generator)}
    for block in block_names(params):
        weights[f"{block}.attention.wq.weight"] = matrix(dim, dim)
        weights[f"{block}.attention.wk.weight"] = matrix(keys, dim)
        weights[f"{block}.attention.wv.weight"] = matrix(keys, dim)
        weights[f"{block}.attention.wo.weight"] = matrix(dim, dim)
        weights[f"{block}.feed_forward.w1.weight"] = matrix(width, dim)
        weights[f"{block}.feed_forward.w2.weight"] = matrix(dim, width)
        weights[f"{block}.feed_forward.w3.weight"] = matrix(width, dim)
        weights[f"{block}.attention_norm.weight"] = gain()
        weights[f"{block}.ffn_norm.weight"] = gain()
    weights["norm.weight"] = gain()
    weights["output.weight"] = matrix(params["vocab_size"], dim)
    return weights


def write(folder, params, weights, n_shards=1, embedding_dim=1):
    """Save a checkpoint, whole or in tensor-parallel shards; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    if n_shards == 1:
        torch.save(weights, folder / "consolidated.pth")
        return folder
    for shard in range(n_shards):
        part = {}
        for name, tensor in weights.items():
            kind = name.split(".")[-2]
            if kind == "tok_embeddings":
                dim = embedding_dim
            elif kind in ROWS_SPLIT:
                dim = 0
            elif kind in ("wo", "w2"):
                dim = 1
            else:  # norms are repeated
                part[name] = tensor.clone()
                continue
            part[name] = tensor.chunk(n_shards, dim)[shard].clone()
        torch.save(part, folder / f"consolidated.{shard:02d}.pth")
    return folder


def logits(params, weights, tokens):
    """All heads' logits [T, n, V] in float64 for a list of token ids."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    n = params.get("n_future_tokens", 1)
    n_trunk = params["n_layers"] - n
    state = w["tok_embeddings.weight"][torch.tensor(tokens)]
    for i in range(n_trunk):
        state = _block(params, w, f"layers.{i}", state)
    heads = [f"layers.{n_trunk}", *(f"extra_heads.{i}" for i in range(n - 1))]
    result = []
    for head in heads:
        out = _norm(params, _block(params, w, head, state), w["norm.weight"])
        result.append(out @ w["output.weight"].T)
    return torch.stack(result, 1)


def _norm(params, x, gain):
    eps = params.get("norm_eps", 1e-5)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def _rotate(params, x):
    """Turn neighbouring channel pairs of [T, head_dim] as complex numbers."""
    length, width = x.shape
    theta = params.get("rope_theta", 10000.0)
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    turned = torch.complex(x[:, 0::2], x[:, 1::2]) * torch.polar(torch.ones_like(angles), angles)
    return torch.stack((turned.real, turned.imag), -1).flatten(1)


def _block(params, w, name, x):
    head_dim = params["dim"] // params["n_heads"]
    group = params["n_heads"] // (params.get("n_kv_heads") or params["n_heads"])
    y = _norm(params, x, w[f"{name}.attention_norm.weight"])
    q, k, v = (y @ w[f"{name}.attention.{m}.weight"].T for m in ("wq", "wk", "wv"))
    outputs = []
    for head in range(params["n_heads"]):
        own = slice(head * head_dim, (head + 1) * head_dim)
        shared = slice(head // group * head_dim, (head // group + 1) * head_dim)
        scores = _rotate(params, q[:, own]) @ _rotate(params, k[:, shared]).T / head_dim**0.5
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        outputs.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[:, shared])
    x = x + torch.cat(outputs, -1) @ w[f"{name}.attention.wo.weight"].T
    y = _norm(params, x, w[f"{name}.ffn_norm.weight"])
    gate, up = (y @ w[f"{name}.feed_forward.{m}.weight"].T for m in ("w1", "w3"))
    return x + (gate * torch.sigmoid(gate) * up) @ w[f"{name}.feed_forward.w2.weight"].T
