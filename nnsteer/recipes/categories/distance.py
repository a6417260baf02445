"""How far apart the categories are, to hold against the effect of steering (CAST Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from nnsteer.program.site import Site
from nnsteer.program.span import PROMPT
from nnsteer.study.run import Run
from nnsteer.texts.categories import Groups
from nnsteer.texts.contrast import ContrastSet, Text
from nnsteer.texts.source import Prompt


def measure_distances(run: Run, seen: Groups, unseen: Groups) -> None:
    """Writes distances.json: for each seen category and every other the mean cosine distance of the
    one's fit prompts from the other's test prompts. A prompt is embedded as the mean of its tokens'
    states after the last block, about the mean of all fit prompts (the paper: a sentence
    encoder)."""
    if run.folder.has("distances.json"):
        return
    site, read = Site(run.runner.layout.num_layers - 1), {}
    for name, splits in {**seen, **unseen}.items():
        both = ContrastSet(texts(splits.fit), texts(splits.test))
        read[name] = run.runner.record(both, [site], PROMPT)
    fitted = {name: read[name].positive[site] for name in seen}
    tested = {name: of_name.negative[site] for name, of_name in read.items()}
    centre = torch.cat(list(fitted.values())).mean(0)

    def mean_unit(rows: torch.Tensor) -> torch.Tensor:
        return normalize((rows - centre).double(), dim=-1).mean(0)

    # the mean cosine of all pairs of unit vectors is the product of their means
    table = {
        name: {other: 1 - float(mean_unit(rows) @ mean_unit(tested[other])) for other in tested}
        for name, rows in fitted.items()
    }
    run.folder.write_json("distances.json", table)


def texts(prompts: Sequence[Prompt]) -> tuple[Text, ...]:
    """Prompts to be read."""
    return tuple(Text(prompt.text) for prompt in prompts)
