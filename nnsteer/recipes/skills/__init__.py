"""Broad skills (*Extending Activation Steering to Broad Skills and Multiple Behaviours*, arXiv
2403.05767): take a skill, coding, away from a model by adding the mean activation on text minus the
one on code, and measure what that costs elsewhere.

    python -m nnsteer.recipes.skills                       # the bundled model: minutes on two cores
    python -m nnsteer.recipes.skills --config recipes/skills-llama2-code.toml # the paper's run
    python -m nnsteer.recipes.skills --model org/name --skill mine.jsonl,column=sql --layers 4 8+12

Code and prose are by default of Python's standard library, which every machine has: no module is in
two splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnsteer import ALL, Program, add, block_outs, fit, measure, report, save_directions, study
from nnsteer.recipes.skills import options, walks


@dataclass(frozen=True)
class Config(options.ModelOptions):
    """Defaults run the bundled model on the standard library."""

    model: str = "nnsteer:organism"
    """A hub id, a folder, or the bundled model. Documents are read without a chat template."""
    skill: tuple[str, ...] = ("nnsteer:code",)
    """SOURCE of documents that show the skill; or two, one to fit on and one to tune and test on.
    A hub dataset is streamed. A `,where=COLUMN=VALUE` or `,where=COLUMN!=VALUE` at the end picks
    rows."""
    retained: tuple[str, ...] = ("nnsteer:prose",)
    """SOURCE of documents of what is to be retained, likewise."""
    fit_documents: int = 250
    """Documents of each domain that the direction is fitted on, at most (the paper: 5,000)."""
    tune_documents: int = 80
    """Documents of each domain on which the layers are compared, at most."""
    test_documents: int = 160
    """Documents of each domain that are reported on, at most (the paper: 500,000 tokens)."""
    max_tokens: int = 128
    """The first tokens of a document that are read (the paper: 4,096)."""
    read: Literal["last", "all"] = "last"
    """Which tokens' mean a document's activation is: the last one, as published, or all."""
    layers: tuple[str, ...] | None = None
    """Layers to steer, from 0: each on its own, or several together, as in 10+15. When not given:
    each, and the middle two."""
    coefficients: tuple[float, ...] = (
        *(0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0),
        *(5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0),
    )
    """In lengths of the direction, from 0 up. The walk ends where less than 5 % of the skill is
    left."""
    drifting: bool = False
    """As published, go on through the documents from coefficient to coefficient. What is seen then
    is of different texts."""
    batch_size: int = 64
    seed: int = 0
    out: Path = Path("runs/skills")
    """The run's folder. A run that was stopped goes on from there."""


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    options.check(config)
    files, places = options.model(config)
    domains = options.domains(config)
    hits = measure.hits(config.max_tokens)
    run = study.start("skills", config, files, domains.fingerprints(), [hits])

    # 1. The direction: the mean activation on what is retained minus the one on the skill. Controls
    #    shuffle the entries of both means: as published, and cut to the direction's length.
    with run.timed("direction"):
        sites = block_outs(sorted({layer for layers in places.values() for layer in layers}))
        contrast, tokens = options.contrast(domains), options.READ[config.read]
        method, how = "mean_difference", options.from_means
        direction = run.fit("direction", contrast, sites, tokens, method, how)
        permuted = [fit.permuted(direction, config.seed + i) for i in range(walks.DRAWS)]
        matched = [fit.norm_matched(control, direction) for control in permuted]
        every = [d for control in permuted for d in control.values()]
        save_directions(run.folder / "permuted.safetensors", every)

    # 2. Up the coefficients at every place, on the tune split. The best place to steer is the one
    #    where most is retained when a tenth of the skill is gone; the dose, the coefficient there.
    with run.timed("tune"):
        ladder = config.coefficients
        ways = {place: [direction.at(*layers)] for place, layers in places.items()}
        best, dose = walks.choose(run, walks.up(run, config, domains, "tune", ways, ladder))

    # 3. On the test split: every place, the controls at the best one, and the dose chosen there.
    with run.timed("test"):
        steer = add(direction.at(*places[best]), dose, ALL)
        run.save([study.Variant("unsteered", Program()), study.Variant("steered", steer)])
        controls = {
            walks.PERMUTED: [control.at(*places[best]) for control in permuted],
            walks.MATCHED: [control.at(*places[best]) for control in matched],
        }
        walks.up(run, config, domains, "test", ways | controls, ladder)
        walks.up(run, config, domains, "test", {walks.CHOSEN: ways[best]}, (0.0, dose))

    # 4. The summary, the figures and the page.
    report.write(run.folder)
