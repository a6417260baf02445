"""One program for each op, span, site and kind of condition: what every executor has to get
right."""

from __future__ import annotations

from dataclasses import replace

import torch

from nnsteer import fit
from nnsteer.fit.activations import Activations
from nnsteer.program.condition import Condition
from nnsteer.program.identity import ModelId
from nnsteer.program.op import (
    Ablate,
    AblateSubspace,
    Add,
    Affine,
    BoundNorm,
    Clamp,
    Custom,
    Edit,
    KeepNorm,
    Rotate,
)
from nnsteer.program.program import Program, Step, add, affine
from nnsteer.program.site import Head, Site, block_outs
from nnsteer.program.span import (
    ALL,
    GENERATED,
    LAST_PROMPT,
    PROMPT,
    Positions,
    Span,
    first_generated,
)
from nnsteer.texts.contrast import of_prompts

from conftest import HARMFUL, HARMLESS, MIXED

SPANS = {
    "all": ALL,
    "prompt": PROMPT,
    "last prompt token": LAST_PROMPT,
    "generated": GENERATED,
    "first two generated": first_generated(2),
    "after the instruction": Span(-3, None),
    "positions": Positions((0, 2, -2, 9)),
}
SITES = (
    Site(0, "block_in"),
    Site(2, "block_in"),
    Site(1, "attn_out"),
    Site(1, "mlp_out"),
    Site(2),
    Site(3),
)
HEAD = Head(1, 2)
READ = (*SITES, Site(0), Site(1), HEAD)


def read_of(positive, negative):
    """Activations at one site from states [text, hidden]."""
    site = Site(0)
    norms = {site: (positive.norm(dim=1), negative.norm(dim=1))}
    return Activations(
        {site: positive}, {site: negative}, norms, PROMPT, ModelId("made", None, "w"), "data"
    )


def squash(h, scale):
    return torch.tanh(h * scale)


def fitted(runner):
    """Activations at every site of the catalogue."""
    return runner.record(of_prompts(HARMFUL * 4, HARMLESS * 4), READ)


def ops(activations, site):
    """Every op at one site."""
    d = fit.mean_difference(activations)[site]
    other = fit.random_like({site: d}, 3)[site]
    return {
        "add": Add(d, 0.7),
        "ablate": Ablate(d),
        "ablate half": Ablate(d, 0.5),
        "ablate a plane": AblateSubspace((d, other)),
        "affine": Affine(d, 1.5),
        "clamp": Clamp(d, 1.2),
        "rotate": Rotate(d, other, 50.0),
        "leace": Edit(fit.leace(activations)[site]),
        "orth": Edit(fit.orth(activations)[site]),
        "quadratic": Edit(fit.quadratic(activations, "positive")[site]),
        "quadratic-lda": Edit(fit.quadratic_lda(activations, "positive")[site]),
        "custom": Custom(squash, (torch.tensor(0.9),)),
        "add, norm kept": KeepNorm(Add(d, 2.0)),
        "add, norm bound": BoundNorm(Add(d, -0.4)),
    }


def condition(runner, directions, layer, **changes):
    """A condition whose threshold lies in the middle of the mixed prompts' scores."""
    return middle(runner, Condition(directions[Site(layer)], 0.0, **changes))


def middle(runner, free):
    return replace(free, threshold=runner.scores(MIXED, [free])[0].sort().values[1:3].mean().item())


def grid(activations):
    """Every op over every span, at one block's output."""
    return {
        (op_name, span_name): Program((Step(op, Site(2), span),))
        for op_name, op in ops(activations, Site(2)).items()
        for span_name, span in SPANS.items()
    }


def others(runner, activations):
    """Sites, conditions, rules and several steps."""
    d = fit.mean_difference(activations)
    late, early = {Site(2): d[Site(2)], Site(3): d[Site(3)]}, {Site(0): d[Site(0)]}
    when = condition(runner, d, 1)
    second = condition(runner, fit.random_like(d, 5), 2, score="projection")
    third = condition(runner, d, 1, score="coordinate", span=Positions((-1, -2)))
    programs = {f"add at {site}": add({site: d[site]}, 1.5) for site in (*SITES, HEAD)}
    programs |= {f"affine at {site}": affine({site: d[site]}, -1.0) for site in (*SITES, HEAD)}
    return programs | {
        "two ops at one site": add(late, 1.0) + Program((Step(Ablate(d[Site(2)]), Site(2)),)),
        "two heads": add({HEAD: d[HEAD]}, 2.0) + add({Head(1, 0): d[HEAD].moved(Head(1, 0))}, -2.0),
        "everywhere": add({site: d[site] for site in block_outs(range(4))}, 0.5),
        "conditional": add(late, 1.0).when(when),
        "complement": add(late, 1.0).when(~when),
        "cast condition": add(late, 1.0).when(
            condition(runner, d, 1, score="cast", fires_when="below")
        ),
        "and": add(late, 1.3).when(when & second),
        "or": add({Site(3): d[Site(3)]}, 1.3).when(~when | third),
        "not both": add({Site(3): d[Site(3)]}, 3.0).when(~(when & second)),
        "edit at the condition's site": add({Site(1): d[Site(1)]}, 2.0).when(when),
        "edit before its condition": add(early, 1.0).when(when),
        "condition after an unconditional edit": add(early, 1.0) + affine(late, 1.0).when(when),
        "condition on the last token": add(late, 1.0).when(
            condition(runner, d, 1, span=LAST_PROMPT)
        ),
        "condition on a head": add(late, 2.0).when(
            middle(runner, Condition(d[HEAD], 0.0, "above", "projection"))
        ),
    }


def everything(runner, activations):
    """All programs by name, the empty one first."""
    named = {f"{op} on {span}": program for (op, span), program in grid(activations).items()}
    return {"baseline": Program()} | named | others(runner, activations)
