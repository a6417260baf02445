"""CAST over categories of requests (*Programming Refusal with Conditional Activation Steering*,
section 5): refuse one category, several, all but one, or answer what the model refuses, by rules
over conditions.

    python -m nnsteer.recipes.categories                  # the bundled model: minutes on two cores
    python -m nnsteer.recipes.categories --model my-folder --categories mine.jsonl --out runs/mine

It runs the refusal recipe first, in a folder inside its own, and steers with the direction and the
dose that it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnsteer import PROMPT, Program, block_outs, report, study
from nnsteer.recipes.categories import experiments, options, points
from nnsteer.recipes.categories.distance import measure_distances
from nnsteer.recipes.categories.habits import compare_habits
from nnsteer.recipes.categories.removal import mostly_refused
from nnsteer.recipes.categories.saturation import saturate


@dataclass(frozen=True)
class Config(options.RefusalConfig):
    """The refusal recipe's options, which decide the direction and the dose, and those of the
    categories."""

    categories: str = "nnsteer:categories.jsonl"
    """SOURCE of rows with `prompt`, `category`, `base` (the request of which it is a counterpart)
    and `split`."""
    seen: tuple[str, ...] = ("base", "adult", "legal", "hate", "crime", "health")
    """Categories that get a condition; the first is the ordinary one."""
    unseen: tuple[str, ...] = ("gambling", "finance", "privacy", "malware")
    """Categories that are only tested on."""
    category_false_alarms: float = 1.0
    """The largest share of the other categories' tune prompts on which a condition may fire; 1 for
    the paper's F1 alone."""
    points: tuple[str, ...] = ()
    """Conditions that are known, as NAME:LAYER>THRESHOLD or NAME:LAYER<THRESHOLD; the others are
    found on the tune split."""
    removal_layers: tuple[int, ...] | None = None
    """Layers at which refusal is removed; chosen on the tune split when not given."""
    removal_strength: float | None = None
    """Likewise; given as a positive number, and taken away."""
    removal_prompts: int = 20
    """Refused tune prompts on which each way to remove refusal is tried."""
    out: Path = Path("runs/categories")
    """The run's folder. A run that was stopped goes on from there."""


def main(config: Config) -> None:
    """The method, step by step; what each step made lies in the run folder."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    options.check(config)
    if config.dry_run:
        return options.show_plan(config, options.plan(config))
    texts = options.texts(config)
    files, layers = options.model(config)
    adding, removing = options.searches(config, layers)
    measures = options.measures(config, texts.requests)
    sampling, data = study.Sampling(config.max_new_tokens), texts.fingerprints()
    run = study.start("categories", config, files, data, measures, sampling)

    # 1. The refusal directions, and the dose that adds them: the refusal recipe's.
    directions, dose = options.refusal_run(run, config, adding)
    doses = adding.doses(directions)
    refuse = doses.programs[dose]

    # 2. What the model refuses unsteered: kinds of harmful prompts, and categories. And the dose
    #    that, taken away, makes it answer most of that, chosen on the tune split.
    with run.timed("removal"):
        refused = mostly_refused(run, *texts.tune(), config.removal_prompts, config.seed)
        removals = removing.doses(directions, sign=-1)
        comply = Program()
        if refused.tune.prompts:
            tried, limit = [refused.tune], config.max_broken
            removal = run.choose_removal("removal", removals.programs, tried, limit)
            comply = removals.programs[removal]

    # 3. A condition for each category, told from the others; and one for each of those kinds, told
    #    from the categories too: directions, then layer, threshold and side on the tune split.
    with run.timed("conditions"):
        sites, conditions = block_outs(adding.condition_layers), {}
        method, how = config.condition_method, adding.how
        for name, groups in texts.comparisons(config, refused.kinds).items():
            fitted = {}
            for target in groups.targets:
                contrast, file = groups.contrast(target), f"{name}_{target}"
                fitted[target] = run.fit(file, contrast, sites, PROMPT, method, how)
            conditions[name] = points.find(run, config, name, groups, fitted)

    # 4. Every experiment's rules on the test prompts, beside random directions.
    with run.timed("rules"):
        test = texts.test(refused.kinds)
        rules = experiments.experiments(config.seen, refused.kinds, refused.categories)
        run.folder.write_json("experiments.json", rules)
        behaviours = {"refuse": refuse, "comply": comply}
        variants = experiments.variants(rules, **conditions, behaviours=behaviours)
        run.save([variant for of_experiment in variants.values() for variant in of_experiment])
        for experiment, of_experiment in variants.items():
            run.ask(of_experiment, [test[name] for name in experiments.SETS[experiment]])
        random = "random direction"
        run.ask([study.Variant(random, doses.controls(dose))], [test["seen"]])
        if refused.kinds:
            run.ask([study.Variant(random, removals.controls(removal))], [test["refused"]])

    # 5. For comparison: the model is told in words to answer one domain alone.
    with run.timed("prompting"):
        for domain in config.seen[1:]:
            variant = study.Variant(f"told: only {domain}", Program(), {"domain": domain})
            experiments.told(run, domain).ask([variant], [test["seen"], test["unseen"]])

    # 6. How far apart the categories are; how good a condition gets with its examples; what the
    #    published habits cost.
    with run.timed("distances"):
        measure_distances(run, texts.seen, texts.unseen)
    with run.timed("saturation"):
        saturate(run, config, texts.requests, sites)
    if not config.as_published:
        with run.timed("published"):
            compare_habits(run, config, texts.requests, sites, doses, dose)

    # 7. The summary, the figures and the page.
    report.write(run.folder)
