"""Affine concept editing (ACE, *Refusal in LLMs is an Affine Function*): sets how much of the refusal direction is in the model's
states, counted from where it is on harmless prompts, and compares this with other ways to steer over a range of alpha.

    python -m nnsteer.recipes.affine                                             # the bundled model: minutes on two cores
    python -m nnsteer.recipes.affine --where layer all residual scrubbed --methods ace add ablate leace --out runs/places
    python -m nnsteer.recipes.affine --layer arditi --out runs/arditi            # layer and position as Arditi et al. choose them
    python -m nnsteer.recipes.affine --config recipes/affine-llama3-8b.toml      # the paper's models

Each answer is judged, and each method has a standardisation score: how close its two curves of refusal against alpha, of harmful
and of harmless prompts, are to one another, to 0 at alpha 0 and to 1 at alpha 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Literal

from nnsteer import command
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import check_folder, open_folder
from nnsteer.measure.divergence import broken
from nnsteer.measure.kinds import OfAnswers
from nnsteer.measure.named import measures
from nnsteer.measure.sampled import Cell, Judged, Sampling, ask
from nnsteer.measure.standardisation import check_alphas
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model
from nnsteer.model.options import RequestOptions
from nnsteer.program.files import load_programs, save_programs
from nnsteer.program.program import Program
from nnsteer.program.site import block_outs
from nnsteer.program.span import Last
from nnsteer.recipes.affine.arditi import best_candidate
from nnsteer.recipes.affine.layer import best_layer
from nnsteer.recipes.affine.methods import METHODS, NEED_COVARIANCE, Method, Steered, cells, cells_of, named
from nnsteer.recipes.affine.places import Where, read_at
from nnsteer.recipes.affine.refused import refusal_tokens, refused
from nnsteer.recipes.affine.texts import texts
from nnsteer.report import affine as report
from nnsteer.study import kept
from nnsteer.texts.refusal import SIDES, Requests, load_requests


@dataclass(frozen=True)
class Config(RequestOptions):
    """Defaults run the bundled model on the bundled prompts."""

    contrast: str = "refused"
    """Texts to fit on: refused (harmful prompts that the model refuses, harmless ones that it answers), prompts (all of them),
    caa, caa:SOURCE, opencon, abcon, ab:SOURCE, open:SOURCE or openr:SOURCE; see recipes/affine.toml."""
    fit_prompts: int = 4000
    """Prompts a side, or rows of the contrast's SOURCE, to fit on, at most (the paper's code: 32)."""
    methods: tuple[Method, ...] = tuple(METHODS)
    """What to compare; `random` is the control, ACE along random directions."""
    where: tuple[Where, ...] = ("layer",)
    """One layer, all layers, residual (what attention and MLP add at every layer), or residual with concept scrubbing."""
    layer: tuple[int, ...] | Literal["tuned", "arditi"] = "tuned"
    """From 0; of several, or of all (`tuned`), the one that standardises best on the tune split; or as Arditi et al. choose."""
    max_kl: float = 0.1
    """For `--layer arditi`: nats by which ablation may change the next token after harmless prompts."""
    alphas: tuple[float, ...] = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    """How much of r: 0 as on harmless prompts, 1 as on harmful ones."""
    span: Steered = "both"
    """Edit the prompt (before), the answer (after) or both; or the tokens that the published code's scopes really edit."""
    measure: str = "refusal"
    """What judges an answer: a measure of 0 or 1 as in studies, such as refusal, classifier or judge:FILE.toml."""
    samples: int = 1
    """Answers to each prompt (the paper's code: 20)."""
    temperature: float = 0.0
    """0 is greedy, with one sample (the paper's code: 1.5)."""
    tune_prompts: int = 40
    """Prompts a side on which the layer is chosen."""
    test_prompts: int = 100
    """Prompts a side, at most (the paper's code: 25)."""
    max_drift: float = 3.0
    """Nats per token of the unsteered model beyond which an answer counts as broken (median over its tokens)."""
    max_new_tokens: int = 24
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/affine")
    """The run's folder. A run that was stopped goes on from there."""


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check(config)
    requests = load_requests(config.harmful, config.harmless, config.refusals, config.compliances, config.seed)
    contrast = texts(config.contrast, requests, config.fit_prompts, config.seed)
    judged = Judged(refusal_measure(config, requests), broken(config.max_drift))
    files = find_model(config.model, config.revision)
    layers = num_layers(files.config)
    candidates = config.layer if isinstance(config.layer, tuple) else tuple(range(layers))
    check_layers(candidates, layers)
    settings = kept.settings_of(config)
    check_folder(config.out, settings, "affine")
    runner = kept.open_runner(files, kept.where_of(config, config.batch_size), config.out)
    facts = {"model": asdict(runner.model), "data": requests.fingerprints() | {"contrast": contrast.fingerprint()}}
    folder = open_folder(config.out, settings, facts, "affine")
    sampling = Sampling(config.samples, config.temperature, config.max_new_tokens, config.seed)
    tune = [(side, prompt) for side in SIDES for prompt in requests.side(side, "tune", config.tune_prompts)]
    test = [(side, prompt) for side in SIDES for prompt in requests.side(side, "test", config.test_prompts)]

    # 1. The texts; of prompts, by default those alone on which the model does what is expected of their side.
    if config.contrast == "refused":
        with folder.timed("refused"):
            contrast = refused(folder, runner, contrast, refusal_tokens(runner.chat, requests))

    # 2. r = r+ - r- at every candidate site, and the site at which ACE standardises best on the tune split.
    with folder.timed("layer"):
        if config.layer == "arditi":
            chosen = best_candidate(folder, runner, requests, contrast, config.max_kl, config.tune_prompts)
        else:
            found = kept.fitted(folder, "directions", runner, contrast, block_outs(candidates), Last(), "mean_difference")
            chosen = best_layer(folder, runner, found, tune, sampling, judged)

    # 3. Every method at every alpha, as programs: each place's r and moments are read, and editors fitted to them.
    with folder.timed("fit"):
        if not folder.has("programs.safetensors"):
            made = [Cell("unsteered", 0.0, (Program(),))]
            for where in config.where:
                fitted = read_at(where, chosen.site, runner, contrast, chosen.span, bool(NEED_COVARIANCE & {*config.methods}))
                made += cells(config.methods, where, fitted, config.alphas, config.span)
            save_programs(folder / "programs.safetensors", named(made))
        asked = cells_of(load_programs(folder / "programs.safetensors"))

    # 4. Sampled answers on the test split, judged.
    with folder.timed("test"):
        ask(folder, "rows.jsonl", runner, asked, test, sampling, judged)

    # 5. The summary with the standardisation scores, the figures and the page.
    report.write(folder)


def check(config: Config) -> None:
    """Refuses what no run can use."""
    at_least_one(config, "fit_prompts", "samples", "tune_prompts", "test_prompts", "max_new_tokens", "batch_size")
    for name in ("methods", "where", "layer", "alphas"):
        given = getattr(config, name)
        if not given or (not isinstance(given, str) and len({*given}) < len(given)):
            raise UserError(f"--{name} {' '.join(map(str, given)) or 'with nothing'}: give at least one, and each once")
    if not all(map(isfinite, config.alphas)):
        raise UserError(f"--alphas {' '.join(map(str, config.alphas))}: must be finite numbers, such as -0.5 0 0.5 1")
    check_alphas(config.alphas)
    if not 0 <= config.temperature < inf:
        raise UserError(f"--temperature {config.temperature}: must be 0 (greedy) or above")
    if config.temperature == 0 and config.samples > 1:
        raise UserError(f"--samples {config.samples} --temperature 0: greedy answers are all the same; give a --temperature")
    if config.remote not in (None, "local") and {"scrubbed", "scrubbed-half"} & {*config.where}:
        raise UserError(
            f"--where scrubbed --remote {config.remote}: scrubbing reads edited streams, which needs the weights here"
        )
    if config.layer == "arditi" and config.contrast not in ("refused", "prompts"):
        raise UserError(f"--layer arditi --contrast {config.contrast}: it reads prompts, not answers; give --contrast refused")


def refusal_measure(config: Config, requests: Requests) -> OfAnswers:
    """What judges an answer. Raises UserError for a measure of something else."""
    (found,) = measures([config.measure], requests.refusals, config.out.expanduser())
    if not isinstance(found, OfAnswers) or not found.binary:
        raise UserError(f"--measure {config.measure}: must judge answers with yes or no, as refusal, classifier or a judge does")
    return found

