"""Conditional refusal (CAST, *Programming Refusal with Conditional Activation Steering*, sections 3 and 4): make a model
refuse harmful requests, and only those, by adding a refusal direction when a condition on the prompt holds.

    python -m nnsteer.recipes.refusal                                   # the bundled model: about a minute on two cores
    python -m nnsteer.recipes.refusal --config recipes/refusal.toml --out runs/mine
    python -m nnsteer.recipes.refusal --model Qwen/Qwen1.5-1.8B-Chat --harmful mine.csv,column=request
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, cycle, product
from math import isfinite
from pathlib import Path
from typing import Literal

from nnsteer import command, fit, report
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.fit import tune
from nnsteer.folder import check_folder, open_folder
from nnsteer.measure.answers import Asked, Judge, ask
from nnsteer.measure.classifier import classifier
from nnsteer.measure.kinds import OfAnswers
from nnsteer.measure.refusal import by_keywords, by_openers, either
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model
from nnsteer.model.options import RequestOptions
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Score, Side
from nnsteer.program.direction import Directions
from nnsteer.program.files import save_programs
from nnsteer.program.program import Program, add
from nnsteer.program.site import block_outs
from nnsteer.program.span import ALL, GENERATED, PROMPT, Last, Reading, Span, first_generated
from nnsteer.recipes import published
from nnsteer.recipes.plan import plan, show_plan
from nnsteer.study import kept
from nnsteer.texts.contrast import of_prompts, of_responses
from nnsteer.texts.refusal import SIDES, Requests, load_requests


@dataclass(frozen=True)
class Config(RequestOptions):
    """Defaults run the bundled model on the bundled prompts."""

    method: fit.Method = "pca_pairwise"
    """How the behaviour direction is fitted."""
    condition_method: fit.Method = "lda"
    """How the condition direction is fitted; the paper's is pca_pairwise."""
    score: Score = "cosine"
    """The condition's score: the signed cosine, or CAST's sim(h, tanh(proj h))."""
    threshold: float | None = None
    """Where the condition fires; chosen on the tune split, with its layer and side, when not given."""
    fires_when: Side = "above"
    """The side of --threshold on which it does."""
    as_published: bool = False
    """Reads and steers as CAST's own code does (`nnsteer/recipes/published.py`), for its settings; directions have length 1."""
    judged_by: Literal["openers", "cast"] = "openers"
    """What a refusal is: an answer that begins like one, or one that CAST's classifier or keywords find."""
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
    """The largest share of harmless tune prompts on which the condition may fire; 1 for the paper's F1 alone."""
    tune_prompts: int = 40
    """Prompts a side on which the best ways to steer are tried, beside random directions; all ways on a sixth of them."""
    max_broken: float = 0.05
    """The largest share of broken answers that a way to steer may have on the tune split."""
    max_drift: float = 3.0
    """Nats per token of the unsteered model beyond which an answer counts as broken (median over its tokens)."""
    max_new_tokens: int = 24
    batch_size: int = 128
    seed: int = 0
    out: Path = Path("runs/refusal")
    """The run's folder. A run that was stopped goes on from there."""
    dry_run: bool = False
    """Says what the run would do, and what it lacks. Loads no weights and writes nothing."""


# opener tokens to read the behaviour on, and tokens to add it to
WINDOWS: dict[str, Reading] = {"first 3": first_generated(3), "all": GENERATED, "last": Last()}
SPANS = {"all": ALL, "prompt": PROMPT}
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)
DRAWS = 16  # random directions that the control's prompts take in turn: one alone can move refusal far either way


def main(config: Config, opened: Runner | None = None) -> None:
    """The method, step by step; what each step made lies in the run folder. `opened` is the model, where it is open already."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check_numbers(config)
    for method in (config.method, config.condition_method):
        fit.method_named(method)
    if config.dry_run:
        return show_plan(plan(config))
    windows, spans, strengths = choices(config)
    requests = load_requests(config.harmful, config.harmless, config.refusals, config.compliances, config.seed)
    files = find_model(config.model, config.revision)
    layers = num_layers(files.config)
    bands = [config.layers] if config.layers else tune.layer_bands(layers)
    condition_layers = config.condition_layers or tuple(range(max(1, layers // 2)))
    check_layers([*condition_layers, *chain(*bands)], layers)
    settings = kept.settings_of(config)
    check_folder(config.out, settings, "refusal")
    runner = opened or kept.open_runner(files, kept.where_of(config, config.batch_size), config.out)
    folder = open_folder(config.out, settings, {"model": asdict(runner.model), "data": requests.fingerprints()}, "refusal")
    judge = Judge(measure(config, requests), config.max_drift)

    # 1. The behaviour direction: prompts with a refusal opener against the same prompts with a compliance opener.
    with folder.timed("behaviour"):
        fitted = published.fitted if config.as_published else kept.fitted
        questions = [prompt.text for prompt in requests.side("harmless", "fit", config.pairs)]
        answered = of_responses(questions, requests.refusals, requests.compliances, config.seed)
        everywhere = block_outs(range(layers))
        behaviour = {
            name: fitted(folder, f"behaviour_{name.replace(' ', '_')}", runner, answered, everywhere, tokens, config.method)
            for name, tokens in windows.items()
        }

    # 2. The condition direction: harmful against harmless prompts, the mean over each prompt's tokens.
    with folder.timed("condition"):
        pairs = of_prompts(*([p.text for p in requests.side(side, "fit", config.condition_pairs)] for side in SIDES))
        concept = fitted(folder, "condition", runner, pairs, block_outs(condition_layers), PROMPT, config.condition_method)

    # 3. The condition point: layer, threshold and side, by an exact sweep on the tune split.
    with folder.timed("condition_point"):
        known = None if config.threshold is None else (config.threshold, config.fires_when)
        when = kept.condition_point(
            folder, runner, requests, concept, config.score, config.condition_pairs, config.max_false_alarms, known
        )

    # 4. The dose: which tokens to read the direction on and to add it to, at which layers and how hard, on the tune split.
    with folder.timed("dose"):
        doses = [tune.Dose(*choice) for choice in product(windows, spans, bands, strengths)]
        directions = {d: behaviour[d.window].at(*d.layers) for d in doses}
        programs = {dose: add(directions[dose], dose.strength, SPANS[dose.span]) for dose in doses}
        dose = kept.dose(
            folder, runner, requests, programs, partial(random_programs, directions, config.seed), judge, config.max_broken,
            config.tune_prompts, config.max_new_tokens,
        )  # fmt: skip

    # 5. Five variants on the test split.
    with folder.timed("test"):
        steer = programs[dose]
        variants = {
            "baseline": Program(),
            "unconditional": steer,
            "conditional": steer.when(when),
            "complement": steer.when(~when),
        }
        controls = random_programs(directions, config.seed, dose)
        save_programs(folder / "programs.safetensors", variants | {f"random_{i}": c for i, c in enumerate(controls)})
        prompts = [(side, prompt) for side in SIDES for prompt in requests.side(side, "test")]
        asked = [Asked(name, side, prompt, program) for name, program in variants.items() for side, prompt in prompts]
        asked += [Asked("random", *one, program) for one, program in zip(prompts, cycle(controls), strict=False)]
        ask(folder, "rows.jsonl", runner, asked, judge, config.max_new_tokens)

    # 6. The summary, the figures and the page.
    report.write(folder)


def choices(config: Config) -> tuple[dict[str, Reading], dict[str, Span], tuple[float, ...]]:
    """The reading windows, spans and strengths among which the dose is chosen."""
    strengths = STRENGTHS if config.strength is None else (config.strength,)
    return (WINDOWS, SPANS, strengths) if not config.as_published else ({"all": GENERATED}, {"all": ALL}, strengths)


def random_programs(directions: Mapping[tune.Dose, Directions], seed: int, dose: tune.Dose) -> list[Program]:
    """The dose's control: random directions of its directions' lengths."""
    draws = [fit.random_like(directions[dose], seed + i) for i in range(DRAWS)]
    return [add(draw, dose.strength, SPANS[dose.span]) for draw in draws]


def measure(config: Config, requests: Requests) -> OfAnswers:
    """What a refusal is."""
    return by_openers(requests.refusals) if config.judged_by == "openers" else either(classifier(), by_keywords())


def check_numbers(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "pairs", "condition_pairs", "tune_prompts", "max_new_tokens", "batch_size")
    if config.threshold is not None and (config.condition_layers is None or len(config.condition_layers) != 1):
        raise UserError(f"--threshold {config.threshold}: is for one layer; give it with --condition-layers")
    if config.strength is not None and not isfinite(config.strength):
        raise UserError(f"--strength {config.strength}: must be a finite number of lengths of the direction, such as 0.5")


if __name__ == "__main__":
    command.run(Config, main, __doc__)
