"""Every family of `families.py`, checked against plain PyTorch hooks on the modules that are named
there: nnsteer's rows are padded on the left, the hooks' run one by one. `python -m
benchmarks.families` writes the outcomes to docs/families.md."""

from __future__ import annotations

import re
from contextlib import contextmanager
from inspect import signature

import pytest
import torch
from transformers import AutoModelForCausalLM

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.kernels import logits
from nnsteer.model.attach import attach
from nnsteer.model.bake import bake
from nnsteer.model.chat import Chat
from nnsteer.model.layout import find_layout
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition
from nnsteer.program.program import ablate, add
from nnsteer.program.site import STREAMS, Head, Site
from nnsteer.program.span import ALL, GENERATED, LAST_PROMPT, PROMPT, Last
from nnsteer.texts.contrast import Text, of_prompts

from conftest import HARMFUL, HARMLESS, MIXED
from families import FAMILIES, LAYERS, REFUSED, build

PROMPTS = MIXED[:3]
NEW_TOKENS = 5
HEAD = Head(1, 2)
LAST = Site(LAYERS - 1)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def runner(name, family, tokenizer):
    return Runner.wrap(build(family.config, family.options, tokenizer), Chat(tokenizer), name)


@pytest.fixture(scope="module")
def sites(family):
    """By name, one of each kind that the family has."""
    kinds = {
        "block_in": True,
        "attn_out": family.attention,
        "mlp_out": family.mlp,
        "block_out": True,
    }
    found = {stream: Site(1, stream) for stream in STREAMS if kinds[stream]}
    return found | {"the last block": LAST} | ({"a head": HEAD} if family.heads else {})


@pytest.fixture(scope="module")
def activations(runner, sites):
    return runner.record(of_prompts(HARMFUL, HARMLESS), (*sites.values(), Site(0, "block_in")))


@pytest.fixture(scope="module")
def directions(activations):
    return fit.mean_difference(activations)


@pytest.fixture(scope="module")
def programs(directions, sites):
    """An addition at every site, and over every kind of span."""
    at_sites = {name: add({site: directions[site]}, 1.5) for name, site in sites.items()}
    later = {Site(1): directions[Site(1)]}
    return at_sites | {
        "the prompt": add(later, 4.0, PROMPT),
        "generated tokens": add(later, 4.0, GENERATED),
    }


def rows(runner):
    """Each prompt alone, [1, token]."""
    return [torch.tensor([runner.chat.prompt_ids(prompt)]) for prompt in PROMPTS]


@contextmanager
def plain_hook(model, family, program):
    """The program's one addition, by a PyTorch hook. In generation with a cache, a pass over
    several tokens is the prompt's."""
    step = program.steps[0]
    site, vector = step.site, step.op.strength * step.op.direction.vector
    halves = {"attn_out": family.attention, "mlp_out": family.mlp}
    path = family.heads if isinstance(site, Head) else halves.get(site.stream)
    module = model.get_submodule(".".join(filter(None, (family.blocks, str(site.layer), path))))

    def changed(h):
        if step.span != ALL and (step.span == PROMPT) != (h.shape[1] > 1):
            return h
        if isinstance(site, Head):
            before, after = site.head * len(vector), h.shape[-1] - (site.head + 1) * len(vector)
            return h + torch.nn.functional.pad(vector, (before, after))
        return h + vector

    def before(_module, args):
        return (changed(args[0]), *args[1:])

    def after(_module, _args, output):
        return (changed(output[0]), *output[1:]) if isinstance(output, tuple) else changed(output)

    reads_input = isinstance(site, Head) or site.stream == "block_in"
    handle = (
        module.register_forward_pre_hook(before)
        if reads_input
        else module.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


def last_logits(runner, model):
    """Of each prompt, [row, vocab]."""
    with torch.no_grad():
        return torch.cat([model(row, use_cache=False).logits[:, -1] for row in rows(runner)])


def generated(runner):
    """Greedy tokens of each prompt."""
    model, end, out = runner.hf, runner.chat.tokenizer.eos_token_id, []
    for row in rows(runner):
        ids = model.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=True,
        )
        new = ids[0, row.shape[1] :].tolist()
        out.append(tuple(new[: new.index(end)] if end in new else new))
    return out


def reason(error):
    """The part of a refusal that says why, without what differs from family to family and from run
    to run."""
    why = str(error).partition(";")[0].rpartition(": ")[2]
    return re.sub(r"\b\d\S*", "…", re.sub(r"\w+ForCausalLM", "this family", why))


def close(got, want, what):
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4, msg=lambda text: f"{what}: {text}")


def test_discovery(runner, family, sites, record_property):
    layout = runner.layout
    assert (layout.blocks, layout.num_layers) == (family.blocks, LAYERS)
    assert (layout.attention, layout.mlp) == (family.attention, family.mlp)
    if family.heads:
        assert (layout.num_heads, layout.head_width) == (4, family.options.get("head_dim", 8))
    wanted = {"attn_out": Site(1, "attn_out"), "mlp_out": Site(1, "mlp_out"), "a head": HEAD}
    missing = {name: site for name, site in wanted.items() if name not in sites}
    for site in missing.values():
        with pytest.raises(UserError, match="no such module; use block_in or block_out"):
            layout.path(site)
    if missing:
        record_property("cell", f"yes, without {', '.join(missing).replace('a head', 'heads')}")


@pytest.mark.parametrize("refused", REFUSED)
def test_what_is_not_safe_is_refused(refused, tokenizer, record_property):
    with pytest.raises(UserError, match="this family is not supported") as caught:
        find_layout(build(*REFUSED[refused], tokenizer))
    record_property("cell", f"refused: {reason(caught.value)}")


def test_read(runner, family, activations):
    """What is read at a block's output is what the next block, or what follows the last one,
    receives; and a block adds what is read at its attention and its MLP."""
    for site, path in {Site(1): f"{family.blocks}.2", LAST: family.after}.items():
        seen = []
        hook = runner.hf.get_submodule(path).register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0].mean(1))
        )
        for prompt in HARMFUL:
            with torch.no_grad():
                runner.hf(torch.tensor([runner.chat.prompt_ids(prompt)]), use_cache=False)
        hook.remove()
        close(activations.positive[site], torch.cat(seen), str(site))
    if family.attention and family.mlp:
        block_in, attn_out, mlp_out, block_out = (
            activations.positive[Site(1, stream)] for stream in STREAMS
        )
        close(block_in + attn_out + mlp_out, block_out, "what a block adds")


def test_read_of_the_last_tokens(runner, family, sites):
    """The last block's MLP is run for those tokens alone, and gives what it gives in a pass over
    all."""
    seen = []
    hook = runner.hf.get_submodule(family.after).register_forward_pre_hook(
        lambda _, args: seen.append(args[0][:, -2:])
    )
    for prompt in HARMFUL:
        with torch.no_grad():
            runner.hf(torch.tensor([runner.chat.prompt_ids(prompt)]), use_cache=False)
    hook.remove()
    want, contrast = torch.cat(seen), of_prompts(HARMFUL, HARMLESS)
    close(runner.record(contrast, [LAST], LAST_PROMPT).positive[LAST], want[:, -1], "one token")
    close(
        runner.record(contrast, [Site(0), LAST], Last(2)).positive[LAST], want.mean(1), "two tokens"
    )
    every = runner.record(contrast, sites.values(), LAST_PROMPT)
    close(every.positive[LAST], want[:, -1], "with other sites")
    for name, site in sites.items():
        close(
            runner.record(contrast, [site], LAST_PROMPT).positive[site], every.positive[site], name
        )


def test_steer(runner, family, programs):
    plain = last_logits(runner, runner.hf)
    close(torch.cat(runner.logits(PROMPTS)), plain, "not steered")
    for name, program in programs.items():
        with plain_hook(runner.hf, family, program):
            want = last_logits(runner, runner.hf)
        assert ((want - plain).abs().max() > 0.05) == (program.steps[0].span != GENERATED), name
        close(torch.cat(runner.logits(PROMPTS, program)), want, name)


def test_generate(runner, family, programs):
    plain = generated(runner)
    assert len({token for row in plain for token in row}) > len(PROMPTS)
    for name, program in programs.items():
        with plain_hook(runner.hf, family, program):
            want = generated(runner)
        assert [c.ids for c in runner.generate(PROMPTS, program, NEW_TOKENS)] == want, name
        assert want != plain or program.steps[0].span == ALL, name


def test_steer_and_generate_variants_in_one_batch(runner, programs):
    """Which share the blocks before the first site where they differ."""
    at_outputs = [
        programs[name] for name in ("block_out", "the last block", "the prompt", "generated tokens")
    ]
    for variants, asked in (
        (list(programs.values()), PROMPTS),
        (at_outputs, PROMPTS),
        (at_outputs, PROMPTS[:1]),
    ):
        prompts, each = (
            [p for p in asked for _ in variants],
            variants * len(asked),
        )  # at last as many rows as heads
        logits, completions = (
            runner.logits(prompts, each),
            runner.generate(prompts, each, NEW_TOKENS),
        )
        for i, variant in enumerate(variants):
            mine = slice(i, None, len(variants))
            close(torch.cat(logits[mine]), torch.cat(runner.logits(asked, variant)), str(variant))
            assert [c.ids for c in completions[mine]] == [
                c.ids for c in runner.generate(asked, variant, NEW_TOKENS)
            ]


def test_generate_samples_from_the_models_own_logits(runner):
    """Those after a cap or a scale, where a family has one."""
    plain = last_logits(runner, runner.hf)
    for seed in range(3):
        noisy = logits.gumbel(
            plain[:, None], 0, temperature=0.7, seed=seed, row_ids=range(len(PROMPTS))
        )
        completions = runner.generate(PROMPTS, max_new_tokens=1, temperature=0.7, seed=seed)
        got = [c.ids[0] if c.ids else runner.chat.tokenizer.eos_token_id for c in completions]
        assert got == noisy[:, 0].argmax(-1).tolist()


def test_attach(runner, programs, directions):
    """The Runner's numbers, with a verdict that has to last through decoding too."""
    free = Condition(directions[LAST], 0.0)
    middle = Condition(
        free.direction, runner.scores(PROMPTS, [free])[0].sort().values[:2].mean().item()
    )
    programs = programs | {
        f"{name} if": programs[name].when(middle) for name in ("block_in", "generated tokens")
    }
    batch = runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in PROMPTS]))
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    takes_positions = "position_ids" in signature(type(runner.hf).forward).parameters
    positions = {"position_ids": (batch.mask.cumsum(1) - 1).clamp(min=0)} if takes_positions else {}
    for name, program in programs.items():
        with torch.no_grad(), attach(runner.hf, program):
            logits = runner.hf(**inputs, **positions).logits[:, -1]
            ids = runner.hf.generate(
                **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True
            )
        close(logits, torch.cat(runner.logits(PROMPTS, program)), name)
        texts = runner.chat.tokenizer.batch_decode(
            ids[:, batch.ids.shape[1] :], skip_special_tokens=True
        )
        assert texts == [c.text for c in runner.generate(PROMPTS, program, NEW_TOKENS)], name


def test_bake(runner, family, sites, directions, tmp_path, record_property):
    """Each edit, in weights that were saved and loaded again, is the Runner's, or it is refused."""
    places = {stream: sites[stream] for stream in STREAMS if stream in sites} | {
        "block_in": Site(0, "block_in")
    }
    edits = {f"add at {stream}": add({site: directions[site]}) for stream, site in places.items()}
    edits |= {
        f"ablate at {s}": ablate({places[s]: directions[places[s]]})
        for s in ("attn_out", "mlp_out")
        if s in places
    }
    refused = {}
    for name, program in edits.items():
        try:
            bake(runner.hf, program, untie=True).save_pretrained(tmp_path / name)
        except UserError as error:
            refused.setdefault(reason(error), []).append(name)
            continue
        again = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        close(last_logits(runner, again), torch.cat(runner.logits(PROMPTS, program)), name)
    assert {name for names in refused.values() for name in names} == set(family.unbaked)
    if refused:
        some = "no: " if len(family.unbaked) == len(edits) else "all but "
        record_property(
            "cell",
            some + "; ".join(f"{', '.join(names)} ({why})" for why, names in refused.items()),
        )
