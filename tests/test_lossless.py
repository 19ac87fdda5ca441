"""Every sequential family writes plain decoding's text, in float64, whatever its drafts are.

The oracle is transformers' own trunk over the whole prefix, one token at a time, without a cache. A
full product of what may differ would take hours: the rows here hold every pair of values.
"""

import itertools
import random

import pytest
import torch
from lm_eval.api.instance import Instance

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling, gumbel, row_key, warp
from mtp_harness.harness.generation import Decoding, Generator
from mtp_harness.lm import MTPLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.head_states import head_states

from .decode.models_for_tests import Scripted, cut
from .models.family_checkpoints import CONFIGS, QWEN, in_float64, write

FULL_ATTENTION = "qwen3_5_text, full attention"
FACTORS = {
    "family": [*CONFIGS, FULL_ATTENTION],
    "modules": [1, 5],  # one is used again and again, several are chained
    "k": [1, 2, 3, 4, 5, 6],
    "slots": [1, 2, 6],
    "ends": ["length", "budgets", "stop", "eos"],
    "sampling": [Sampling(), Sampling(0.9), Sampling(1.3, top_k=4, top_p=0.9)],
    "threshold": [0.0, 0.3],
    "resume": [False, True],
}
LETTERS = [ord(letter) for letter in "abcdef"]
PROMPTS = ["bca", "a", "fade bad cafe"]
LENGTH, REPEATS, SEED = 14, 2, 5


def covering_rows(factors):
    """Return rows that hold every pair of values of any two factors."""
    names, rng, rows = [*factors], random.Random(0), []
    ways = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*factors.values())
    ]

    def pairs(row):
        return set(
            itertools.combinations([(name, factors[name].index(row[name])) for name in names], 2)
        )

    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i in range(len(factors[a]))
        for j in range(len(factors[b]))
    }
    while missing:
        rows.append(max(rng.sample(ways, 60), key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(rows[-1])
    return rows


ROWS = covering_rows(FACTORS)


def speak_letters(module, name):
    """Let a trunk write `LETTERS` nearly always, so that drafts are right now and then."""
    if name == "trunk":
        weight = module.lm_head.weight.data
        weight[LETTERS[:3]] *= 8
        weight[LETTERS[3:]] = -weight[LETTERS[:3]]  # one of each two is above zero
        weight[[i for i in range(len(weight)) if i not in LETTERS]] *= 0.001


class Case:
    """A family's checkpoints, by number of modules, and what its trunk alone writes."""

    def __init__(self, family, tmp_path_factory):
        name = family.split(",")[0]
        small = {"vocab_size": 260, "num_hidden_layers": 2}
        if name in QWEN:
            last = ["full_attention"]
            first = last if family == FULL_ATTENTION else ["linear_attention"]
            small["layer_types"] = first + last
        self.lms = {}
        for n in FACTORS["modules"]:
            folder = tmp_path_factory.mktemp("family")
            self.main, _ = write(folder, name, n, fill=speak_letters, **small)
            byte_tokenizer(512).save_pretrained(folder)
            lm = MTPLM(str(folder), device="cpu", dtype="float64", draft_heads=6)
            for config in (lm.model.main.config, lm.model.modules_.config):
                config._experts_implementation = "eager"  # the others have no float64 on a CPU
            self.lms[n] = lm
        self.prompts = [lm.tok_encode(prompt) for prompt in PROMPTS]
        self.plain = {}
        for document in range(len(PROMPTS)):
            self.plain |= self.written(document)

    @torch.no_grad()
    def written(self, document):
        """Return {(sampling, document, repeat): tokens}, all rows of a prompt in one forward."""
        rows = [*itertools.product(FACTORS["sampling"], [document], range(REPEATS))]
        keys = [row_key(SEED, "t", document, repeat) for _, _, repeat in rows]
        texts = torch.tensor([self.prompts[document]] * len(rows))
        for _ in range(LENGTH):
            logits = self.main(texts).logits[:, -1:]
            new = []
            for row, (sampling, *_) in enumerate(rows):
                scores = logits[row : row + 1]
                if not sampling.greedy:
                    at = torch.tensor([[texts.shape[1]]])
                    noise = gumbel(torch.tensor(keys[row : row + 1]), at, scores.shape[-1])
                    scores = warp(scores, sampling) + noise
                new.append(scores.argmax(-1))
            texts = torch.cat([texts, torch.cat(new)], 1)
        answers = texts[:, -LENGTH:].tolist()
        return dict(zip(rows, answers, strict=True))


@pytest.fixture(scope="module", params=FACTORS["family"])
def case(request, tmp_path_factory):
    with in_float64():
        yield request.param, Case(request.param, tmp_path_factory)


def to_text(tokens):
    return "".join(map(chr, tokens))


def asked(case, row, rng):
    """Return instances, repeats of one document being one object, and their rules for ending."""
    instances, rules = [], []
    for document, prompt in enumerate(PROMPTS):
        plain = case.plain[row["sampling"], document, 0]
        at = rng.randrange(LENGTH - 4)
        letters = [token for token in plain[at : at + rng.randint(1, 3)] if token in LETTERS]
        until = [to_text(letters)] if row["ends"] == "stop" and letters else []
        budget = rng.randint(1, LENGTH) if row["ends"] == "budgets" else LENGTH
        given = {"until": until, "max_gen_toks": budget, "do_sample": not row["sampling"].greedy}
        if given["do_sample"]:
            names = ("temperature", "top_k", "top_p")
            given |= {name: getattr(row["sampling"], name) for name in names}
        one = Instance("generate_until", {}, (prompt, given), 0, metadata=("t", document, REPEATS))
        instances += [one] * REPEATS
        rules += [(document, repeat, until, budget) for repeat in range(REPEATS)]
    return instances, rules


def answers_of(case, row, eos, instances, journal):
    lm = case.lms[row["modules"]]
    lm.batch_size_per_gpu = row["slots"]
    how = Decoding(row["k"], row["threshold"], "exact", SEED, journal)
    generator = Generator(lm, lm.model, eos, how)
    return generator.answer(instances, True), generator.n_from_journal


def test_the_text_is_plain_decodings(case, tmp_path):
    family, case = case
    rng, verified = random.Random(family), 0
    for number, row in enumerate(row for row in ROWS if row["family"] == family):
        instances, rules = asked(case, row, rng)
        eos = rng.sample(LETTERS, 1) if row["ends"] == "eos" else []
        journal = tmp_path / str(number) if row["resume"] else None
        if journal:
            answers_of(case, row, eos, instances[:3], journal)  # then it was killed
        answers, n_resumed = answers_of(case, row, eos, instances, journal)
        assert n_resumed == 3 * bool(journal)
        for answer, (document, repeat, until, budget) in zip(answers, rules, strict=True):
            plain = case.plain[row["sampling"], document, repeat]
            tokens, why = cut(plain, eos, until, budget, to_text)
            assert list(answer.record.tokens) == tokens, row
            assert answer.record.ended_by == why, row
            verified += sum(answer.record.n_verified)
    assert verified > 0


@pytest.mark.parametrize("right", [0, 3], ids=["always wrong", "always right"])
def test_drafts_that_are_always_alike(case, right):
    """At k = 4, with one module and with several."""
    _, case = case
    plain = [case.plain[Sampling(), document, 0] for document in range(len(PROMPTS))]
    texts = [prompt + answer for prompt, answer in zip(case.prompts, plain, strict=True)]
    model = case.lms[1 if right else 5].model
    scripted = Scripted(model, case.prompts, texts, lambda row, position: right)
    engine = Engine(scripted, 4, [], to_text, slots=2)
    n_steps = 1 + 2 if right else 9
    requests = [Request(prompt, 1 + (1 + right) * n_steps) for prompt in case.prompts]
    for answer, tokens in zip(engine.generate(requests), plain, strict=True):
        assert answer.tokens == tokens[: len(answer.tokens)]
        assert answer.record.n_verified == (right,) * n_steps


@torch.no_grad()
def test_unverified_text_is_what_the_heads_write(case):
    """By a plain loop: all heads' tokens, each from the text with those before; then head 1's."""
    _, case = case
    for n, lm in case.lms.items():
        model, text = lm.model, list(case.prompts[0])

        def write_next(offset, states, text=text, model=model):
            text.append(int(model.logits(offset, states[0, -offset]).argmax()))

        write_next(1, dict(head_states(model, torch.tensor([text]), 1))[1])
        for _ in range(3):
            for offset in (2, 3, 4):
                found = dict(head_states(model, torch.tensor([text]), offset))
                write_next(offset, found[offset])
            write_next(1, dict(head_states(model, torch.tensor([text]), 1))[1])
        how = Decoding(4, 0.0, "all", SEED, None)
        given = {"until": [], "max_gen_toks": 13, "do_sample": False}
        one = Instance("generate_until", {}, (PROMPTS[0], given), 0, metadata=("t", 0, 1))
        [answer] = Generator(lm, model, [], how).answer([one], True)
        assert list(answer.record.tokens) == text[len(case.prompts[0]) :], n
        assert answer.record.draft_rule.startswith("LOSSY") and not answer.record.lossless
