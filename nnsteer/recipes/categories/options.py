"""What a categories run's options stand for: its texts, its layers and doses, and the refusal run
that it begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain

from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.divergence import broken
from nnsteer.measure.kinds import Measure
from nnsteer.model.layout import check_layers
from nnsteer.program.direction import Directions
from nnsteer.program.files import load_directions
from nnsteer.recipes import refusal
from nnsteer.recipes.categories.points import Comparison, parse_known
from nnsteer.recipes.refusal import Config as RefusalConfig
from nnsteer.recipes.refusal.options import SPANS, Config, Search, model
from nnsteer.recipes.refusal.plan import or_why_not, show_plan
from nnsteer.study.choose import Dose
from nnsteer.study.run import Run
from nnsteer.texts.categories import Groups, by_kind, load_categories
from nnsteer.texts.refusal import Requests, Split
from nnsteer.texts.sets import PromptSet

__all__ = ["RefusalConfig", "model", "show_plan"]


@dataclass(frozen=True)
class Texts:
    """What is read and asked; `seen` are the categories that get a condition."""

    requests: Requests
    seen: Groups
    unseen: Groups

    def fingerprints(self) -> dict[str, str]:
        """A hash of each side's and each category's prompts."""
        categories = {**self.seen, **self.unseen}
        hashes = {name: splits.fingerprint() for name, splits in categories.items()}
        return self.requests.fingerprints() | hashes

    def tune(self) -> tuple[PromptSet, PromptSet]:
        """Harmful prompts, and those of the seen categories, to choose on."""
        return self.requests.sets("tune")[0], pooled("seen", self.seen, "tune")

    def test(self, kinds: Sequence[str]) -> dict[str, PromptSet]:
        """The sets to report on; of the harmful prompts, some kinds alone."""
        harmful = self.requests.side("harmful", "test")
        refused = tuple(prompt for prompt in harmful if prompt.kind in kinds)
        return {
            "seen": pooled("seen", self.seen, "test"),
            "unseen": pooled("unseen", self.unseen, "test"),
            "refused": PromptSet("refused test", refused),
        }

    def comparisons(self, config: Config, kinds: Sequence[str]) -> dict[str, Comparison]:
        """What conditions tell apart: categories; and some kinds of harmful prompts, from one
        another and from the categories."""
        known = dict(map(parse_known, config.points))
        of_kinds = by_kind(self.requests.harmful, kinds)
        categories = {f"category {name}": splits for name, splits in self.seen.items()}
        return {
            "categories": Comparison(config.seen, self.seen, self.unseen, known),
            "kinds": Comparison(kinds, of_kinds | categories),
        }


def pooled(name: str, groups: Groups, split: Split) -> PromptSet:
    """The prompts of several groups as one set."""
    prompts = chain.from_iterable(getattr(splits, split) for splits in groups.values())
    return PromptSet(f"{name} {split}", tuple(prompts))


def texts(config: Config) -> Texts:
    """Reads every SOURCE."""
    names = (*config.seen, *config.unseen)
    categories = load_categories(config.categories, names, config.seed)
    seen, unseen = ({name: categories[name] for name in of} for of in (config.seen, config.unseen))
    return Texts(refusal.options.requests(config), seen, unseen)


def searches(config: Config, layers: int) -> tuple[Search, Search]:
    """Among what is chosen where refusal is added, and where it is taken away."""
    layers_of_points = [parse_known(text)[1].layer for text in config.points]
    check_layers(layers_of_points, layers)
    adding = refusal.options.search(config, layers)
    read_at = tuple(sorted({*adding.condition_layers, *layers_of_points}))
    steered = config.removal_layers or config.layers
    strength = config.removal_strength or config.strength
    away = replace(config, layers=steered, strength=strength)
    removing = replace(refusal.options.search(away, layers), spans=SPANS)
    return replace(adding, condition_layers=read_at), removing


def measures(config: Config, requests: Requests) -> list[Measure]:
    """What a refusal is, and what is broken."""
    return [refusal.options.refusal(config, requests), broken(config.max_drift)]


def refusal_run(run: Run, config: Config, search: Search) -> tuple[Mapping[str, Directions], Dose]:
    """Runs the refusal recipe in a folder inside the run's, if that is not done yet: its directions
    by the window on which they were read, and the dose that it chose."""
    folder = Folder(run.folder / "refusal")
    if not folder.has("summary.json"):
        given = {field.name: getattr(config, field.name) for field in fields(RefusalConfig)}
        refusal.main(RefusalConfig(**given | {"out": folder.path}), run.runner)
    files = {window: folder / f"{name}.safetensors" for window, (name, _) in search.windows.items()}
    directions = {window: load_directions(file) for window, file in files.items()}
    chosen = folder.read_json("dose.json")["chosen"]
    return directions, next(d for d in search.doses(directions).programs if str(d) == chosen)


def plan(config: Config) -> Iterator[tuple[str, str]]:
    """What comes after the refusal recipe's steps."""
    names = (*config.seen, *config.unseen)
    load = partial(load_categories, config.categories, names, config.seed)
    listed = f"{', '.join(names)}; {config.categories}"
    yield "categories", or_why_not(lambda: f"{len(load()[names[0]].test)} test bases, {listed}")
    given = ", ".join(config.points) or "none"
    yield "their conditions", f"{given} given, the others found on the tune split"
    rules = "one category, either of two, all but one, answering, two at once"
    yield "rules", f"{rules}; on {len(names)} test prompts a base"


def check(config: Config) -> None:
    """Refuses what no run can use."""
    refusal.options.check(config)
    at_least_one(config, "removal_prompts")
    seen, names = config.seen, ", ".join(config.seen)
    if len(seen) < 2:
        wanted = "give the ordinary category and at least one other"
        raise UserError(f"--seen {' '.join(seen)}: {wanted}")
    if twice := sorted(set(seen) & set(config.unseen)):
        raise UserError(f"--unseen {' '.join(twice)}: is among --seen; a category is either")
    for name in dict(map(parse_known, config.points)):
        if name not in seen:
            raise UserError(f"--points {name}: not one of --seen; name one of {names}")
