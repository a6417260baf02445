"""How far apart the categories are, to hold against the effect of steering (CAST Figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nnsteer.program.site import Place, Site
from nnsteer.program.span import PROMPT
from nnsteer.study.run import Run
from nnsteer.texts.categories import Groups
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.source import Prompt


def measure_distances(run: Run, seen: Groups, unseen: Groups) -> None:
    """Writes distances.json: for each seen category and every other the mean cosine distance of the
    one's fit prompts from the other's test prompts. A prompt is embedded as the mean of its tokens'
    states after the last block, about the mean of all fit prompts (the paper: a sentence encoder)."""
    if run.folder.has("distances.json"):
        return
    site: Place = Site(run.runner.layout.num_layers - 1)
    fit_prompts = {name: splits.fit for name, splits in seen.items()}
    test_prompts = {name: splits.test for name, splits in {**seen, **unseen}.items()}
    read = run.runner.record(ContrastSet(texts(fit_prompts), texts(test_prompts)), [site], PROMPT)
    centre = read.positive[site].mean(0)
    fitted = mean_units(read.positive[site] - centre, fit_prompts)
    tested = mean_units(read.negative[site] - centre, test_prompts)
    # the mean cosine of all pairs of unit vectors is the product of their means
    distances = (1 - fitted @ tested.mT).tolist()
    table = {
        name: dict(zip(test_prompts, of_name, strict=True))
        for name, of_name in zip(fit_prompts, distances, strict=True)
    }
    run.folder.write_json("distances.json", table)


def texts(prompts: Mapping[str, Sequence[Prompt]]) -> tuple[Text, ...]:
    """All groups' prompts, one group after the other."""
    return tuple(Text(prompt.text) for group in prompts.values() for prompt in group)


def mean_units(states: Tensor, prompts: Mapping[str, Sequence[Prompt]]) -> Tensor:
    """The mean unit vector of each group of such rows, [group, hidden]."""
    groups = normalize(states.double(), dim=-1).split([len(group) for group in prompts.values()])
    return torch.stack([group.mean(0) for group in groups])
