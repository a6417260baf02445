"""Affine concept editing (ACE, *Refusal in LLMs is an Affine Function*): sets how much of the
refusal direction is in the model's states, counted from where it is on harmless prompts, and
compares this with other ways to steer over a range of alpha.

    python -m nnsteer.recipes.affine                   # the bundled model: minutes on two cores
    python -m nnsteer.recipes.affine --where layer all residual scrubbed --out runs/places
    python -m nnsteer.recipes.affine --layer arditi    # layer and position as Arditi et al. choose
    python -m nnsteer.recipes.affine --config recipes/affine-llama3-8b.toml     # the paper's models

Each answer is judged, and each method has a standardisation score: how close its two curves of
refusal against alpha, of harmful and of harmless prompts, are to one another, to 0 at alpha 0 and
to 1 at alpha 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnsteer import Last, block_outs, report, study
from nnsteer.recipes.affine import methods, options, refused
from nnsteer.recipes.affine.arditi import best_candidate
from nnsteer.recipes.affine.layer import best_layer
from nnsteer.recipes.affine.methods import METHODS, Method, Steered
from nnsteer.recipes.affine.places import Where, read_at
from nnsteer.recipes.affine.texts import contrast_set


@dataclass(frozen=True)
class Config(options.RequestOptions):
    """Defaults run the bundled model on the bundled prompts."""

    contrast: str = "refused"
    """Texts to fit on: refused (harmful prompts that the model refuses, harmless ones that it
    answers), prompts (all of them), caa, caa:SOURCE, opencon, abcon, ab:SOURCE, open:SOURCE or
    openr:SOURCE; see recipes/affine.toml."""
    fit_prompts: int = 4000
    """Prompts a side, or rows of the contrast's SOURCE, at most (the paper's code: 32)."""
    methods: tuple[Method, ...] = METHODS
    """What to compare; `random` is the control, ACE along random directions."""
    where: tuple[Where, ...] = ("layer",)
    """One layer, all layers, residual (what attention and MLP add at every layer), or residual with
    concept scrubbing."""
    layer: tuple[int, ...] | Literal["tuned", "arditi"] = "tuned"
    """From 0; of several, or of all (`tuned`), the one that standardises best on the tune split; or
    as Arditi et al. choose."""
    max_kl: float = 0.1
    """For `--layer arditi`: nats by which ablation may change the next token after harmless
    prompts."""
    alphas: tuple[float, ...] = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    """How much of r: 0 as on harmless prompts, 1 as on harmful ones."""
    span: Steered = "both"
    """Edit the prompt (before), the answer (after) or both; or the tokens that the published code's
    scopes really edit."""
    measure: str = "refusal"
    """What judges an answer: a measure of 0 or 1 as in studies, such as refusal, classifier or
    judge:FILE.toml."""
    samples: int = 1
    """Answers to each prompt (the paper's code: 20)."""
    temperature: float = 0.0
    """0 is greedy, with one sample (the paper's code: 1.5)."""
    tune_prompts: int = 40
    """Prompts a side on which the layer is chosen."""
    test_prompts: int = 100
    """Prompts a side, at most (the paper's code: 25)."""
    max_drift: float = 3.0
    """Nats per token of the unsteered model beyond which an answer counts as broken (median over
    its tokens)."""
    max_new_tokens: int = 24
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/affine")
    """The run's folder. A run that was stopped goes on from there."""


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    options.check(config)
    requests = options.requests(config)
    contrast = contrast_set(config.contrast, requests, config.fit_prompts, config.seed)
    measures = options.measures(config, requests)
    files, candidates = options.model(config)
    data = requests.fingerprints() | {"contrast": contrast.fingerprint()}
    sampling = study.Sampling(
        config.max_new_tokens, config.samples, config.temperature, config.seed
    )
    run = study.start("affine", config, files, data, measures, sampling)

    # 1. The texts; of prompts, by default those alone on which the model does what is expected of
    #    their side.
    if config.contrast == "refused":
        with run.timed("refused"):
            tokens = refused.refusal_tokens(run.runner.chat, requests)
            contrast = refused.as_expected(run.folder, run.runner, contrast, tokens)

    # 2. r = r+ - r- at every candidate site, and the site at which ACE standardises best on the
    #    tune split.
    with run.timed("layer"):
        if config.layer == "arditi":
            r = best_candidate(run, requests, contrast, config.max_kl, config.tune_prompts)
        else:
            sites = block_outs(candidates)
            directions = run.fit("directions", contrast, sites, Last(), "mean_difference")
            r = best_layer(run, directions, requests.sets("tune", config.tune_prompts))

    # 3. Every method at every alpha, as programs: each place's r and moments are read, and editors
    #    fitted to them.
    with run.timed("fit"):
        if not run.folder.has(methods.PROGRAMS):
            variants = [methods.UNSTEERED]
            covariance = bool(methods.NEED_COVARIANCE & {*config.methods})
            for where in config.where:
                fitted = read_at(where, r.site, run.runner, contrast, r.span, covariance)
                variants += methods.at(where, fitted, config.methods, config.alphas, config.span)
            methods.save(run.folder, variants)
        variants = methods.load(run.folder)

    # 4. Sampled answers on the test split, judged.
    with run.timed("test"):
        test = requests.sets("test", config.test_prompts)
        options.keep_order(run.folder, test)
        run.ask(variants, test)

    # 5. The summary with the standardisation scores, the figures and the page.
    report.write(run.folder)
