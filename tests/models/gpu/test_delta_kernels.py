"""A delta-rule layer's kernels against a float64 loop over tokens, and against its plain path.

They run on a GPU if there is one, else in Triton's interpreter.
"""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.nn.functional import conv1d, silu, softplus

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch for GPUs")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("kernels need a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from mtp_harness.decode.cache import SlotCache
from mtp_harness.models.gated_delta import EPSILON, serve_slots, state_shapes
from mtp_harness.models.gpu import delta_kernels, delta_window
from mtp_harness.models.gpu.delta_kernels import (
    Layer,
    Parts,
    Window,
    keep_tokens,
    read_token,
    read_window,
)
from mtp_harness.models.gpu.gated_norm import gated_norm
from mtp_harness.models.interface import LayerShape
from mtp_harness.models.trained_apart.medusa import MedusaModel

from ..family_checkpoints import trunk
from ..test_gated_delta import token_by_token

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAN = float("nan")


@pytest.fixture(autouse=True)
def poison():
    """Fill new memory with NaN, as torch does to find out what depends on it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def random_layer(rows, length, key_heads, group, key_dim, value_dim, taps, dtype=torch.float32):
    """Return the arguments of `read_window`; around the parts, memory is NaN."""
    torch.manual_seed(0)
    values = group * value_dim
    widths = [2, key_dim, key_dim, values, 3, values, group, group, 1]
    whole = torch.randn(rows * length, key_heads, sum(widths), device=DEVICE).to(dtype)
    gap, query, key, value, another, z, b, a, last = whole.split(widths, 2)
    for none in (gap, another, last):
        none.fill_(NAN)
    channels = key_heads * (2 * key_dim + values)
    inputs = torch.randn(rows, channels, taps - 1, device=DEVICE).to(dtype).float()
    matrix = torch.randn(rows, key_heads * group, key_dim, value_dim, device=DEVICE)
    weight = torch.randn(channels, 1, taps, device=DEVICE).to(dtype)
    rate, bias = torch.randn(2, key_heads * group, device=DEVICE).to(dtype)
    layer = Layer(inputs, matrix, weight, rate, bias, EPSILON)
    return Parts(query, key, value, z, b, a), layer


def by_token(parts, layer):
    """Return outputs [B, T, H, dv] and both states after 0, 1, ..., T tokens, in float64."""
    inputs, matrix, weight, rate, bias, _ = layer
    rows, heads = matrix.shape[:2]
    query, key, value, _, b, a = (part.double().unflatten(0, (rows, -1)) for part in parts)
    new = torch.cat([part.flatten(2) for part in (query, key, value)], 2).mT  # [B, C, T]
    seen = torch.cat([inputs.double(), new], 2)
    mixed = silu(conv1d(seen, weight.double(), groups=seen.shape[1])).mT
    sizes = [part.shape[2] * part.shape[3] for part in (query, key, value)]
    of = [
        part.unflatten(2, (n, -1))
        for part, n in zip(
            mixed.split(sizes, 2), (query.shape[2], query.shape[2], heads), strict=True
        )
    ]
    each = heads // query.shape[2]
    fade = -rate.double().exp() * softplus(a.flatten(2) + bias.double())
    strength = b.flatten(2).sigmoid()
    n_tokens, before = query.shape[1], inputs.shape[2]
    out = torch.zeros(rows, n_tokens, heads, matrix.shape[3], dtype=torch.float64)
    states = torch.zeros(n_tokens + 1, *matrix.shape, dtype=torch.float64)
    states[0] = matrix
    for row in range(rows):
        for head in range(heads):
            vectors = of[0][row, :, head // each], of[1][row, :, head // each], of[2][row, :, head]
            gates = fade[row, :, head], strength[row, :, head]
            steps = token_by_token(*vectors, *gates, matrix[row, head].double())
            for t, (state, found) in enumerate(steps):
                states[t + 1, row, head], out[row, t, head] = state, found
    return out, [seen[:, :, c : c + before] for c in range(n_tokens + 1)], states


def close(found, expected, tolerance=1e-5):
    """Return whether the difference is small beside the expected numbers' size."""
    difference = (found.double().cpu() - expected.double().cpu()).abs().max()
    return bool(difference <= tolerance * expected.abs().max())


@pytest.mark.parametrize(
    ("rows", "length", "sizes"),
    [
        (1, 1, (2, 2, 16, 16, 4)),
        (3, 1, (1, 1, 8, 4, 2)),
        (1, 2, (3, 1, 4, 16, 3)),
        (3, 2, (1, 3, 16, 8, 4)),
        (1, 4, (1, 2, 32, 16, 4)),
        (3, 4, (2, 1, 8, 16, 4)),
        (1, 7, (1, 2, 16, 8, 9)),
    ],
)
def test_a_window_is_the_loop_over_tokens_for_every_number_of_kept_ones(
    monkeypatch, rows, length, sizes
):
    for kernel in ("READ", "KEEP"):  # several programs for 16 columns
        monkeypatch.setattr(delta_kernels, f"_{kernel}_COLUMNS", 8)
    given = random_layer(rows, length, *sizes)
    out, expected_inputs, expected = by_token(*given)
    found, window = read_window(*given)
    assert close(found, out.flatten(0, 1))
    assert all(map(torch.equal, given[1][:2], random_layer(rows, length, *sizes)[1][:2]))
    for first in range(length + 1):  # rows keep different numbers
        counts = [(first + row) % (length + 1) for row in range(rows)]
        parts, layer = random_layer(rows, length, *sizes)
        inputs, matrix = layer.inputs, layer.matrix
        before = inputs.clone(), matrix.clone()
        kept = Window(*(tensor.clone() for tensor in window))
        rejected = torch.tensor([t >= count for count in counts for t in range(length)])
        for tensor in (*parts[:3], *kept):
            tensor[rejected.to(DEVICE)] = NAN
        keep_tokens(parts, layer, kept, torch.tensor(counts, device=DEVICE))
        for row, count in enumerate(counts):
            if count == 0:
                assert torch.equal(inputs[row], before[0][row])
                assert torch.equal(matrix[row], before[1][row])
            assert close(inputs[row], expected_inputs[count][row])
            assert close(matrix[row], expected[count][row])


@pytest.mark.parametrize(
    "sizes", [(2, 2, 16, 16, 4), (1, 1, 8, 4, 2), (1, 3, 16, 8, 4), (2, 1, 8, 16, 9)]
)
def test_a_window_of_one_token_moves_live_rows_at_once(monkeypatch, sizes):
    monkeypatch.setattr(delta_kernels, "_READ_COLUMNS", 8)
    lengths = torch.tensor([7, 0, 1], device=DEVICE)
    parts, layer = random_layer(3, 1, *sizes)
    out, expected_inputs, expected = by_token(parts, layer)
    before = [state.clone() for state in layer[:2]]
    found = read_token(parts, layer, lengths)
    assert close(found, out.flatten(0, 1))
    for state, old, new in zip(layer[:2], before, (expected_inputs[1], expected[1]), strict=True):
        assert torch.equal(state[1], old[1])
        assert close(state[[0, 2]], new[[0, 2]])


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mtp_harness.models.gpu.delta_kernels import _convolve, _read_window

SIZES = {"n_key_heads": 2, "group": 2, "key_dim": 8, "value_dim": 16}
WIDE = ("inputs", "queries", "keys", "matrix", "written", "remains")
NUMBERS = {"epsilon": "fp32"} | dict.fromkeys(("step", "of_keys", "of_values", "of_gates"), "i32")
NUMBERS |= {"lengths": "*i64"}
WINDOW, TOKEN = {"n_tokens": 2, "lengths": None}, {"n_tokens": 1, "written": None, "remains": None}
for kernel, sizes in ((_convolve, {"taps": 4}), (_read_window, {"block": 16})):
    for given in (WINDOW, TOKEN):
        known = SIZES | sizes | given
        known = {name: size for name, size in known.items() if name in kernel.arg_names}
        types = {
            name: NUMBERS.get(name, "*fp32" if name in WIDE else "*bf16")
            for name in kernel.arg_names
        } | dict.fromkeys(known, "constexpr")
        source = ASTSource(kernel, types, known)
        compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
        print(kernel.__name__)
"""


def test_kernels_compile_where_keys_and_values_differ_in_width(tmp_path):
    """The interpreter does not compare the types of a kernel's branches."""
    environment = {name: it for name, it in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["_convolve"] * 2 + ["_read_window"] * 2, done.stderr


@pytest.mark.parametrize("group", [1, 3])
def test_gated_norm(group):
    parts, *_ = random_layer(3, 2, 3, group, 8, 16, 4)
    states, weight = torch.randn(6, 3 * group, 16, device=DEVICE), torch.rand(16, device=DEVICE)
    wide = states.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    expected *= silu(parts.z.double().unflatten(2, (group, -1)).flatten(1, 2))
    assert close(gated_norm(states, parts.z, weight, 1e-3), expected.flatten(1))


def cache_of(config, dtype, length=40):
    shapes = [LayerShape(2, 16, states=state_shapes(config))] * config.num_hidden_layers
    return SlotCache(shapes, 3, length, dtype, DEVICE)


def plainly(net, own, hidden_states, cache_params, **_):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta_window, "serves", lambda *_: False)
        return own(hidden_states, cache_params=cache_params)


def by_kernels(net, own, hidden_states, cache_params, **_):
    if not delta_window.serves(net, hidden_states, cache_params):
        return plainly(net, own, hidden_states, cache_params)
    return delta_window.run(net, hidden_states, cache_params, EPSILON)


def ragged_calls(cache):
    """Declare prompts and then windows to a cache; yield their tokens, and keep some of them.

    The third row rests in the first window, the second in the last.
    """
    columns, prompts = torch.arange(6, device=DEVICE), torch.tensor([2, 6, 3], device=DEVICE)
    cache.fill(columns[:3], torch.where(columns < prompts[:, None], columns, cache.trash))
    yield 6
    for width, count, resting in ((1, [1, 1, 1], 2), (4, [0, 2, 4], slice(0)), (2, [1, 2, 2], 1)):
        positions = prompts[:, None] + columns[:width]
        positions[resting] = cache.trash
        cache.at(positions, cache.trash)
        yield width
        count = torch.tensor(count, device=DEVICE)
        cache.keep(count)
        prompts = torch.where(positions[:, 0] == cache.trash, prompts, prompts + count)


@pytest.mark.parametrize(
    ("family", "dtype", "tolerance"),
    [
        ("qwen3_5_text", torch.float32, 1e-5),
        ("qwen3_next", torch.float32, 1e-5),
        ("qwen3_next", torch.bfloat16, 0.05),  # the interpreter rounds towards zero
    ],
)
def test_a_layer_gives_what_it_gives_without_kernels(family, dtype, tolerance):
    main = trunk(family, dtype).to(DEVICE)
    serve_slots(main.get_decoder())
    net = main.get_decoder().layers[1].linear_attn
    weights = {name: one.clone() for name, one in net.state_dict().items()}
    caches = [cache_of(main.config, dtype) for _ in range(2)]
    for length, _ in zip(*map(ragged_calls, caches), strict=True):
        hidden = torch.randn(3, length, 64, device=DEVICE).to(dtype)
        live = caches[0].positions[:, 0] < caches[0].trash
        assert delta_window.serves(net, hidden, caches[1]) == (length < 6)
        with torch.inference_mode():
            expected = plainly(net, net, hidden, caches[0])
            found = by_kernels(net, net, hidden, caches[1])
        assert close(found[live], expected[live], tolerance)
    for one, other in zip(*(cache.states[1] for cache in caches), strict=True):
        assert one.any() and close(other, one, tolerance)
    assert all(torch.equal(one, weights[name]) for name, one in net.state_dict().items())
    joined = [one for name, one in net.named_parameters() if name.startswith("in_proj")]
    assert len({one.untyped_storage().data_ptr() for one in joined}) == 1  # nothing is there twice


def test_a_trunk_gives_what_it_gives_without_kernels(monkeypatch):
    kinds = ["linear_attention", "full_attention"]
    heads = {"linear_num_key_heads": 1, "linear_num_value_heads": 2}
    main = trunk("qwen3_5_text", torch.float32, num_hidden_layers=2, layer_types=kinds, **heads)
    model = MedusaModel(main.to(DEVICE), torch.nn.ModuleList())  # n = 1
    nets = [layer.linear_attn for layer in model.base.layers if hasattr(layer, "linear_attn")]
    owns = [net.forward for net in nets]
    found, caches = [], []
    for run in (plainly, by_kernels):
        for net, own in zip(nets, owns, strict=True):
            monkeypatch.setattr(net, "forward", partial(run, net, own))
        torch.manual_seed(0)
        caches.append(SlotCache(model.layer_shapes(1), 3, 40, torch.float32, DEVICE))
        logits = []
        for length in ragged_calls(caches[-1]):
            tokens = torch.randint(200, (3, length), device=DEVICE)
            live = caches[-1].positions < caches[-1].trash
            with torch.inference_mode():
                states = model.trunk(tokens, caches[-1].positions, caches[-1])
                logits.append(model.logits(1, model.head(1, states))[live])
        found.append(torch.cat(logits))
    assert close(found[1], found[0])
    assert all(map(close, caches[1].states[0], caches[0].states[0]))


def test_what_the_kernels_leave_to_the_plain_path():
    main = trunk("qwen3_5_text", torch.float32).to(DEVICE)
    net, cache = main.get_decoder().layers[0].linear_attn, cache_of(main.config, torch.float32)

    def serves(length=4, dtype=torch.float32):
        hidden = torch.zeros(3, length, 64, dtype=dtype, device=DEVICE)
        return delta_window.serves(net, hidden, cache)

    assert not serves()  # prompts
    cache.at(torch.zeros(3, 4, dtype=torch.int64, device=DEVICE), 4)
    assert serves() and not serves(length=9) and not serves(dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "head_v_dim", 24)
        assert not serves()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "activation", "gelu")
        assert not serves()
    net.in_proj_z = torch.nn.Sequential(net.in_proj_z)  # as an adapter or a quantised layer
    assert not serves()
