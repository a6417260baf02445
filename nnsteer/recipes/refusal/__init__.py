"""Conditional refusal (CAST, *Programming Refusal with Conditional Activation Steering*, sections 3
and 4): make a model refuse harmful requests, and only those, by adding a refusal direction when a
condition on the prompt holds.

    python -m nnsteer.recipes.refusal          # the bundled model: about a minute on two cores
    python -m nnsteer.recipes.refusal --config recipes/refusal.toml --out runs/mine
    python -m nnsteer.recipes.refusal --model Qwen/Qwen1.5-1.8B-Chat --harmful my.csv,column=ask
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnsteer import PROMPT, Program, Runner, block_outs, fit, measure, of_responses, report, study
from nnsteer.recipes.refusal import options
from nnsteer.recipes.refusal.plan import show_plan


@dataclass(frozen=True)
class Config(options.RequestOptions):
    """Defaults run the bundled model on the bundled prompts."""

    method: fit.Method = "pca_pairwise"
    """How the behaviour direction is fitted."""
    condition_method: fit.Method = "lda"
    """How the condition direction is fitted; the paper's is pca_pairwise."""
    score: options.Score = "cosine"
    """The condition's score: the signed cosine, or CAST's sim(h, tanh(proj h))."""
    threshold: float | None = None
    """Where the condition fires; chosen on the tune split, with its layer and side, when not
    given."""
    fires_when: options.Side = "above"
    """The side of --threshold on which it does."""
    as_published: bool = False
    """Reads and steers as CAST's own code does (`nnsteer/recipes/published.py`), for its settings;
    directions have length 1."""
    judged_by: Literal["openers", "cast"] = "openers"
    """What a refusal is: an answer that begins like one, or one that CAST's classifier or keywords
    find."""
    layers: tuple[int, ...] | None = None
    """Layers to steer, from 0; chosen on the tune split when not given."""
    strength: float | None = None
    """In lengths of the direction; chosen on the tune split when not given."""
    condition_layers: tuple[int, ...] | None = None
    """Layers at which the condition may be read; the first half when not given."""
    pairs: int = 1000
    """Pairs of texts that the behaviour direction is fitted on, at most."""
    condition_pairs: int = 4000
    """Pairs of prompts that the condition direction is fitted on, at most (the paper: 4,050)."""
    max_false_alarms: float = 0.05
    """The largest share of harmless tune prompts on which the condition may fire; 1 for the paper's
    F1 alone."""
    tune_prompts: int = 40
    """Prompts a side on which the best ways to steer are tried, beside random directions; all ways
    on a sixth of them."""
    max_broken: float = 0.05
    """The largest share of broken answers that a way to steer may have on the tune split."""
    max_drift: float = 3.0
    """Nats per token of the unsteered model beyond which an answer counts as broken (median over
    its tokens)."""
    max_new_tokens: int = 24
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/refusal")
    """The run's folder. A run that was stopped goes on from there."""
    dry_run: bool = False
    """Says what the run would do, and what it lacks. Loads no weights and writes nothing."""


def main(config: Config, opened: Runner | None = None) -> None:
    """The method, step by step; what each step made lies in the run folder. `opened` is the model,
    where it is open already."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    options.check(config)
    if config.dry_run:
        return show_plan(config)
    requests = options.requests(config)
    files, layers = options.model(config)
    search = options.search(config, layers)
    measures = options.refusal(config, requests), measure.broken(config.max_drift)
    sampling, data = study.Sampling(config.max_new_tokens), requests.fingerprints()
    run = study.start("refusal", config, files, data, measures, sampling, opened)

    # 1. The behaviour direction: prompts with a refusal opener against the same prompts with a
    #    compliance opener, read on several windows of the opener's tokens.
    with run.timed("behaviour"):
        questions = requests.texts("harmless", "fit", config.pairs)
        openers = requests.refusals, requests.compliances
        answered, every = of_responses(questions, *openers, config.seed), block_outs(range(layers))
        behaviour = {
            window: run.fit(name, answered, every, tokens, config.method, search.how)
            for window, (name, tokens) in search.windows.items()
        }

    # 2. The condition direction: harmful against harmless prompts, the mean over their tokens.
    with run.timed("condition"):
        pairs, sites = requests.pairs(config.condition_pairs), block_outs(search.condition_layers)
        method = config.condition_method
        concept = run.fit("condition", pairs, sites, PROMPT, method, search.how)

    # 3. The condition point: layer, threshold and side, by an exact sweep on the tune split.
    with run.timed("condition_point"):
        limit, known = config.max_false_alarms, search.known
        sides = requests.sides(config.condition_pairs)
        harmful = run.condition("condition", concept, sides, config.score, limit, known)

    # 4. The dose: which tokens to read the direction on and to add it to, at which layers and how
    #    hard, on the tune split; random directions of the same length are held against it.
    with run.timed("dose"):
        doses = search.doses(behaviour)
        tune = requests.sets("tune", config.tune_prompts)
        dose = run.choose_dose("dose", doses.programs, doses.controls, tune, config.max_broken)

    # 5. Five variants on the test split.
    with run.timed("test"):
        steer = doses.programs[dose]
        variants = [
            study.Variant(study.BASELINE, Program()),
            study.Variant("unconditional", steer),
            study.Variant("conditional", steer.when(harmful)),
            study.Variant("complement", steer.when(~harmful)),
            study.Variant("random", doses.controls(dose)),
        ]
        run.save(variants)
        run.ask(variants, requests.sets("test"))

    # 6. The summary, the figures and the page.
    report.write(run.folder)
