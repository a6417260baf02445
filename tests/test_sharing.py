"""A batch's prefill runs a block once for all rows that reach it alike."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from transformers import DynamicCache

from nnsteer import fit
from nnsteer.kernels import edits
from nnsteer.model.sharing import shared_blocks
from nnsteer.program.condition import Condition
from nnsteer.program.op import Custom, KeepNorm
from nnsteer.program.program import Program, Step, ablate, add
from nnsteer.program.site import STREAMS, Site, block_outs
from nnsteer.program.span import GENERATED, PROMPT, Positions, first_generated
from nnsteer.texts.contrast import Text, of_prompts

from conftest import HARMFUL, HARMLESS, MIXED

PROMPTS = MIXED[:3]


@pytest.fixture(scope="module")
def directions(runner):
    sites = [
        *block_outs(range(runner.layout.num_layers)),
        *(Site(1, stream) for stream in STREAMS[:-1]),
    ]
    return fit.mean_difference(runner.record(of_prompts(HARMFUL, HARMLESS), sites))


def at(directions, layer, strength=2.0, span=PROMPT, stream="block_out"):
    site = Site(layer, stream)
    return add({site: directions[site]}, strength, span)


def shared(runner, programs, texts=PROMPTS, response=""):
    """How many rows each shared block runs on, when every program rides with every text."""
    rows = runner.chat.rows([Text(text, response) for text in texts for _ in programs])
    found = shared_blocks(runner.chat.pad(rows), programs * len(texts), runner.layout)
    return {block["layer"]: len(block["rows"]) for block in found}


@contextmanager
def rows_run(runner):
    """The number of rows of each pass of each block's attention."""
    seen, hooks = {}, []
    for layer in range(runner.layout.num_layers):
        attention = runner.hf.get_submodule(
            f"{runner.layout.blocks}.{layer}.{runner.layout.attention}"
        )

        def note(_module, _args, output, layer=layer):
            seen.setdefault(layer, []).append(len(output[0]))

        hooks.append(attention.register_forward_hook(note))
    yield seen
    for hook in hooks:
        hook.remove()


def test_rows_part_after_the_first_block_at_whose_output_they_differ(runner, directions):
    variants = [
        at(directions, 0),
        at(directions, 0, 3.0),
        at(directions, 1),
        at(directions, 2),
        Program(),
    ]
    assert shared(runner, variants) == {0: 3, 1: 9, 2: 12}
    assert shared(runner, variants[:2]) == {0: 3}
    assert shared(runner, variants[2:4]) == {
        0: 3,
        1: 3,
    }  # and not the third, which each reaches in its own state


def test_rows_of_one_program_and_one_prompt_never_part(runner, directions):
    layers = range(runner.layout.num_layers)
    assert shared(runner, [at(directions, 0)] * 3) == dict.fromkeys(layers, 3)
    assert shared(runner, [at(directions, 0)]) == {}


def test_tokens_after_the_prompt_do_not_part_a_prefill(runner, directions):
    layers = range(runner.layout.num_layers)
    variants = [
        at(directions, 0, span=GENERATED),
        at(directions, 0, span=first_generated(3)),
        Program(),
    ]
    assert shared(runner, variants) == dict.fromkeys(layers, 3)
    assert shared(runner, variants, response="Sure, here it is") == {0: 3}  # they are in the pass
    assert shared(runner, [at(directions, 0, span=Positions((5,))), Program()]) == {0: 3}


def test_blocks_that_are_read_or_steered_inside_run_on_every_row(runner, directions):
    for stream in STREAMS[:-1]:
        assert shared(runner, [at(directions, 1, stream=stream), at(directions, 2)]) == {0: 3}
    when = Condition(directions[Site(1, "attn_out")], 0.0)
    assert shared(runner, [at(directions, 2).when(when), Program()]) == {0: 3, 2: 3}


def test_as_many_rows_as_tokens_or_heads_are_not_shared(runner, directions):
    assert (
        shared(runner, [at(directions, 1, k) for k in range(runner.layout.num_heads)], MIXED[:1])
        == {}
    )
    tokens = len(runner.chat.prompt_ids(MIXED[0]))
    assert shared(runner, [at(directions, 1, k) for k in range(tokens)], MIXED[:1]) == {}


def test_blocks_run_on_fewer_rows_and_give_what_they_gave(runner, directions):
    variants = [
        at(directions, 1),
        ablate({Site(2): directions[Site(2)]}),
        at(directions, 2, span=GENERATED),
        Program(),
    ]
    prompts, each = [p for p in PROMPTS for _ in variants], variants * len(PROMPTS)
    runner = runner.with_batch_size(len(each))
    with rows_run(runner) as seen:
        together = runner.generate(prompts, each, 4)
    assert [rows[0] for rows in seen.values()][:3] == [3, 3, 6]
    assert {n for rows in seen.values() for n in rows[1:]} == {12}
    with rows_run(runner) as seen:
        logits = runner.logits(prompts, each)
    assert [rows[0] for rows in seen.values()][:3] == [3, 3, 6]
    for i, variant in enumerate(variants):
        assert [c.ids for c in together[i :: len(variants)]] == [
            c.ids for c in runner.generate(PROMPTS, variant, 4)
        ]
        for got, want in zip(
            logits[i :: len(variants)], runner.logits(PROMPTS, variant), strict=True
        ):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_a_custom_op_may_draw_random_numbers(runner, directions):
    noise = Custom(lambda h: h + torch.randn_like(h), ())
    for op in (noise, KeepNorm(noise)):
        assert shared(runner, [Program((Step(op, Site(1)),))] * 3) == {}


def test_inputs_that_are_not_one_for_each_row_are_not_cut():
    hidden, mask, flat = torch.zeros(6, 4, 8), torch.zeros(1, 1, 4, 4), torch.arange(6)
    rotary, rows = (torch.zeros(6, 4, 2), torch.zeros(1, 4, 2)), torch.tensor([0, 3])
    assert edits.has_rows((hidden, mask, rotary, flat, None, True, DynamicCache()), 6)
    got = edits.with_rows((hidden, mask, rotary, flat), rows, 6)
    assert (
        got[0].shape == (2, 4, 8) and got[2][0].shape == (2, 4, 2) and got[2][1].shape == (1, 4, 2)
    )
    assert got[1] is mask and got[3] is flat
    assert not edits.has_rows(
        (hidden, torch.zeros(12, 1, 4)), 6
    )  # BLOOM's alibi, a row for each head
    assert not edits.has_rows((hidden, {}), 6)  # a table of keys that later blocks read
    assert not edits.has_rows((hidden, object()), 6)


class Module:
    """A module as a trace hands it out, whose output is twice its first input."""

    def __init__(self, *args):
        self.inputs = (args, {})

    @property
    def input(self):
        return self.inputs[0][0]

    @input.setter
    def input(self, value):
        self.inputs = ((value, *self.inputs[0][1:]), {})

    @property
    def output(self):
        return self.made if hasattr(self, "made") else (2 * self.input, self.input[..., 0])

    @output.setter
    def output(self, value):
        self.made = value


def test_everything_that_a_block_returns_has_every_row_again():
    h = torch.arange(24.0).reshape(3, 4, 2)[[0, 1, 0]]
    block = Module(h)
    edits.run_once(block, torch.tensor([0, 1]), torch.tensor([0, 1, 0]))
    assert block.input.shape[0] == 2
    assert torch.equal(block.output[0], 2 * h) and torch.equal(block.output[1], h[..., 0])


def test_an_mlp_that_takes_more_than_the_states_runs_on_every_token():
    h = torch.ones(3, 4, 2)
    alone, beside = Module(h), Module(h, torch.zeros(3, 4, 5))
    for module in (alone, beside):
        edits.run_on_tokens(module, 3, 4)
    assert alone.input.shape[1] == 1 and alone.output[0][:, :3].any().item() is False
    assert beside.input.shape[1] == 4
