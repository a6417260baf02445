"""What a pass that only reads runs, and what it leaves behind."""

from __future__ import annotations

import gc

import torch

from nnsteer.program.condition import Condition
from nnsteer.program.site import Site
from nnsteer.program.span import LAST_PROMPT
from nnsteer.texts.contrast import of_prompts

from conftest import HARMFUL, HARMLESS, MIXED


def test_the_last_mlp_runs_on_the_tokens_that_are_read(runner):
    mlp, widths = runner.hf.get_submodule(runner.layout.path(Site(3, "mlp_out"))), []
    hook = next(mlp.children()).register_forward_hook(
        lambda _module, args, _output: widths.append(args[0].shape[1])
    )
    contrast = of_prompts(MIXED[:1], MIXED[:1])
    for sites in (
        [Site(3)],
        [Site(3, "mlp_out")],
        [Site(3, "mlp_out"), Site(3)],
        [Site(3, "attn_out")],
        [Site(2)],
    ):
        runner.record(contrast, sites, LAST_PROMPT)
    hook.remove()
    assert widths == [1, 1, 1, 1, *[len(runner.chat.prompt_ids(MIXED[0]))] * 2]


def test_a_pass_that_stops_leaves_no_states_behind(runner, directions):
    free, contrast = Condition(directions[Site(1)], 0.0), of_prompts(HARMFUL, HARMLESS)

    def states():
        return sum(isinstance(o, torch.Tensor) and o.dim() == 3 for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = states()
        runner.record(contrast, [Site(0)])
        runner.scores(MIXED, [free])
        assert states() == before
    finally:
        gc.enable()
