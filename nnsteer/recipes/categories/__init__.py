"""CAST over categories of requests (*Programming Refusal with Conditional Activation Steering*, section 5): refuse one category,
several, all but one, or answer what the model refuses, by rules over conditions.

    python -m nnsteer.recipes.categories                                   # the bundled model: minutes on two cores
    python -m nnsteer.recipes.categories --model my-folder --categories mine.jsonl --out runs/mine

It runs the refusal recipe first, in a folder inside its own, and steers with the direction and the dose that it finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random

from nnsteer import command
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.fit import tune
from nnsteer.folder import Folder, check_folder, open_folder
from nnsteer.measure.answers import Judge, ask
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model
from nnsteer.program.condition import Condition
from nnsteer.program.files import load_directions, load_programs, save_programs
from nnsteer.program.program import Program
from nnsteer.program.site import block_outs
from nnsteer.program.span import PROMPT
from nnsteer.recipes import published, refusal
from nnsteer.recipes.categories.distance import measure_distances
from nnsteer.recipes.categories.experiments import Steering, controls, experiments, questions, variants
from nnsteer.recipes.categories.habits import compare_habits
from nnsteer.recipes.categories.points import find_points, parse_known
from nnsteer.recipes.categories.prompting import ask_prompted
from nnsteer.recipes.categories.removal import refused_kinds, removing
from nnsteer.recipes.categories.removal import removers as removers_of
from nnsteer.recipes.categories.saturation import saturate
from nnsteer.recipes.plan import had, plan, show_plan
from nnsteer.report import categories as report
from nnsteer.study import kept
from nnsteer.texts.categories import by_kind, load_categories, one_against_rest
from nnsteer.texts.refusal import load_requests


@dataclass(frozen=True)
class Config(refusal.Config):
    """The refusal recipe's options, which decide the direction and the dose, and those of the categories."""

    categories: str = "nnsteer:categories.jsonl"
    """SOURCE of rows with `prompt`, `category`, `base` (the request of which it is a counterpart) and `split`."""
    seen: tuple[str, ...] = ("base", "adult", "legal", "hate", "crime", "health")
    """Categories that get a condition; the first is the ordinary one."""
    unseen: tuple[str, ...] = ("gambling", "finance", "privacy", "malware")
    """Categories that are only tested on."""
    category_false_alarms: float = 1.0
    """The largest share of the other categories' tune prompts on which a condition may fire; 1 for the paper's F1 alone."""
    points: tuple[str, ...] = ()
    """Conditions that are known, as NAME:LAYER>THRESHOLD or NAME:LAYER<THRESHOLD; the others are found on the tune split."""
    removal_layers: tuple[int, ...] | None = None
    """Layers at which refusal is removed; chosen on the tune split when not given."""
    removal_strength: float | None = None
    """Likewise; given as a positive number, and taken away."""
    removal_prompts: int = 20
    """Refused tune prompts on which each way to remove refusal is tried."""
    out: Path = Path("runs/categories")
    """The run's folder. A run that was stopped goes on from there."""


REFUSAL = "refusal"  # the refusal recipe's folder in this one


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check_numbers(config)
    if config.dry_run:
        return show_plan(chain(plan(config), category_plan(config)))
    requests = load_requests(config.harmful, config.harmless, config.refusals, config.compliances, config.seed)
    everything = load_categories(config.categories, (*config.seen, *config.unseen), config.seed)
    seen, unseen = ({name: everything[name] for name in names} for names in (config.seen, config.unseen))
    files = find_model(config.model, config.revision)
    layers = num_layers(files.config)
    points = dict(map(parse_known, config.points))
    if strange := [name for name in points if name not in config.seen]:
        raise UserError(f"--points {strange[0]}: not one of --seen; name one of {', '.join(config.seen)}")
    condition_layers = {*(config.condition_layers or range(max(1, layers // 2))), *(point.layer for point in points.values())}
    removal_layers = config.removal_layers or config.layers
    removal_bands = [removal_layers] if removal_layers else tune.layer_bands(layers)
    strength = config.removal_strength or config.strength
    removal_strengths = refusal.STRENGTHS if strength is None else (strength,)
    check_layers([*condition_layers, *chain(*removal_bands)], layers)
    condition_sites = block_outs(sorted(condition_layers))
    settings = kept.settings_of(config)
    check_folder(config.out, settings, "categories")
    runner = kept.open_runner(files, kept.where_of(config, config.batch_size), config.out)
    facts = requests.fingerprints() | {name: splits.fingerprint() for name, splits in everything.items()}
    folder = open_folder(config.out, settings, {"model": asdict(runner.model), "data": facts}, "categories")
    judge = Judge(refusal.measure(config, requests), config.max_drift)

    # 1. The refusal directions, and the dose that adds them: the refusal recipe's.
    first = Folder(folder / REFUSAL)
    if not first.has("summary.json"):
        options = {field.name: getattr(config, field.name) for field in fields(refusal.Config)}
        refusal.main(refusal.Config(**options | {"out": first.path}), runner)
    windows = {name: first / f"behaviour_{name.replace(' ', '_')}.safetensors" for name in refusal.WINDOWS}
    behaviour = {name: load_directions(path) for name, path in windows.items() if path.exists()}
    refuse = load_programs(first / "programs.safetensors")["unconditional"]

    # 2. What the model refuses: kinds of harmful prompts, and categories; and the dose that makes it answer them.
    with folder.timed("removal"):
        asked = {"harmful": requests.side("harmful", "tune"), "seen": [p for splits in seen.values() for p in splits.tune]}
        refused = {
            side: refused_kinds(folder, runner, side, prompts, judge, config.max_new_tokens) for side, prompts in asked.items()
        }
        kinds = refused["harmful"] if len(refused["harmful"]) > 1 else []  # one alone has no rest to be told from
        removers = removers_of(behaviour, removal_bands, removal_strengths)
        pool = [prompt for side, prompts in asked.items() for prompt in prompts if prompt.kind in refused[side]]
        tried = Random(config.seed).sample(pool, min(config.removal_prompts, len(pool)))
        comply = Program()
        if pool:
            comply = removing(folder, runner, tried, removers, judge, config.max_broken, config.max_new_tokens)

    # 3. A condition for each category, told from the others; and one for each of those kinds, told from categories too.
    with folder.timed("conditions"):
        fitted = published.fitted if config.as_published else kept.fitted
        refused_groups = by_kind(requests.harmful, kinds)
        pool_of = {"categories": seen, "kinds": refused_groups | {f"category {name}": splits for name, splits in seen.items()}}
        conditions: dict[str, dict[str, Condition]] = {}
        for name, targets in {"categories": seen, "kinds": refused_groups}.items():
            directions = {}
            for target in targets:
                pairs = one_against_rest(pool_of[name], target)
                stem = f"{name}_{target}"
                directions[target] = fitted(folder, stem, runner, pairs, condition_sites, PROMPT, config.condition_method)
            others, known = (unseen, points) if name == "categories" else ({}, {})
            conditions[name] = find_points(
                folder, name, runner, directions, pool_of[name], others, config.score, config.category_false_alarms, known
            )

    # 4. Every experiment's rules on the test prompts.
    with folder.timed("rules"):
        chosen = experiments(config.seen, kinds, refused["seen"])
        folder.write_json("experiments.json", chosen)
        made = variants(Steering(conditions["categories"], conditions["kinds"], refuse, comply), chosen)
        sets = {
            "seen": [prompt for splits in seen.values() for prompt in splits.test],
            "unseen": [prompt for splits in unseen.values() for prompt in splits.test],
            "harmful": [prompt for prompt in requests.side("harmful", "test") if prompt.kind in kinds],
        }
        randoms = {"seen": controls(refuse, config.seed, refusal.DRAWS)}
        randoms |= {"harmful": controls(comply, config.seed, refusal.DRAWS)} if kinds else {}
        save_programs(folder / "programs.safetensors", {name: program for name, (program, _) in made.items()})
        ask(folder, "rows.jsonl", runner, list(questions(made, sets, randoms)), judge, config.max_new_tokens)

    # 5. For comparison: the model is told in words to answer one domain alone.
    with folder.timed("prompting"):
        ask_prompted(folder, runner, config.seen[1:], {s: sets[s] for s in ("seen", "unseen")}, judge, config.max_new_tokens)

    # 6. How far apart the categories are; how good a condition gets with its examples; what the published habits cost.
    with folder.timed("distances"):
        measure_distances(folder, runner, seen, everything)
    with folder.timed("saturation"):
        saturate(
            folder, runner, requests, condition_sites, config.condition_method, config.score, config.condition_pairs,
            config.max_false_alarms, config.seed,
        )  # fmt: skip
    if not config.as_published:
        with folder.timed("published"):
            compare_habits(
                folder, runner, requests, refuse, condition_sites, config.condition_pairs, judge, config.max_false_alarms,
                config.max_new_tokens,
            )  # fmt: skip

    # 7. The summary, the figures and the page.
    report.write(folder)


def category_plan(config: Config) -> Iterator[tuple[str, str]]:
    """What comes after the refusal recipe's steps."""
    names = (*config.seen, *config.unseen)
    counted = partial(load_categories, config.categories, names, config.seed)
    yield "categories", had(lambda: f"{len(counted()[names[0]].test)} test bases, {', '.join(names)}; {config.categories}")
    yield "their conditions", f"{', '.join(config.points) or 'none'} given, the others found on the tune split"
    yield "rules", f"one category, either of two, all but one, answering, two at once; on {len(names)} test prompts a base"


def check_numbers(config: Config) -> None:
    """Refuses numbers that no run can use."""
    refusal.check_numbers(config)
    at_least_one(config, "removal_prompts")
    if len(config.seen) < 2:
        raise UserError(f"--seen {' '.join(config.seen)}: give the ordinary category and at least one other")
    twice = sorted(set(config.seen) & set(config.unseen))
    if twice:
        raise UserError(f"--unseen {' '.join(twice)}: is among --seen; a category is either")

