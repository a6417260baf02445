"""How far apart the categories are, to hold against the effect of steering (CAST Figure 9)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nnsteer.folder import Folder
from nnsteer.model.runner import Runner
from nnsteer.program.site import Place, Site
from nnsteer.program.span import PROMPT
from nnsteer.texts.categories import Groups
from nnsteer.texts.contrast import ContrastSet, Text


def measure_distances(folder: Folder, runner: Runner, seen: Groups, everything: Groups) -> None:
    """Writes distances.json: for each seen category and every other the mean cosine distance of the one's fit prompts from the
    other's test prompts. A prompt is embedded as the mean of its tokens' states after the last block, about the mean of all fit
    prompts (the paper: a sentence encoder)."""
    if folder.has("distances.json"):
        return
    site: Place = Site(runner.layout.num_layers - 1)
    fit_prompts = {name: [p.text for p in splits.fit] for name, splits in seen.items()}
    test_prompts = {name: [p.text for p in splits.test] for name, splits in everything.items()}
    sides = [tuple(Text(text) for texts in own.values() for text in texts) for own in (fit_prompts, test_prompts)]
    read = runner.record(ContrastSet(*sides), [site], PROMPT)
    centre = read.positive[site].mean(0)
    fitted, tested = (
        mean_units(states - centre, [len(texts) for texts in own.values()])
        for states, own in ((read.positive[site], fit_prompts), (read.negative[site], test_prompts))
    )
    # the mean cosine of all pairs of unit vectors is the product of their means
    cosines = (fitted @ tested.mT).tolist()
    table = {
        one: {other: 1 - cosine for other, cosine in zip(test_prompts, row, strict=True)}
        for one, row in zip(fit_prompts, cosines, strict=True)
    }
    folder.write_json("distances.json", table)


def mean_units(states: Tensor, counts: list[int]) -> Tensor:
    """The mean unit vector of each group of rows, [group, hidden]."""
    return torch.stack([group.mean(0) for group in normalize(states.double(), dim=-1).split(counts)])
