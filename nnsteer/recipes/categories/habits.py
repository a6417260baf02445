"""What the habits of CAST's published code cost: each alone, and all together, on one model and at one dose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from nnsteer import fit
from nnsteer.fit import tune
from nnsteer.fit.activations import Activations
from nnsteer.folder import Folder
from nnsteer.measure.answers import Asked, Judge, ask
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition, Score
from nnsteer.program.direction import Direction
from nnsteer.program.files import load_conditions, save_conditions
from nnsteer.program.program import Program, add
from nnsteer.program.quirks import cast_skew
from nnsteer.program.site import Place, Site
from nnsteer.program.span import PROMPT
from nnsteer.recipes.categories.experiments import parts
from nnsteer.recipes.categories.points import best, placed
from nnsteer.recipes.published import bare, record_with_pads
from nnsteer.texts.contrast import ContrastSet, of_prompts
from nnsteer.texts.refusal import SIDES, Requests, Split

JUDGED: tuple[Split, ...] = ("tune", "test")


@dataclass(frozen=True)
class Habits:
    """What the published code does; off, it is done as in nnsteer."""

    sign_blind: bool = False
    """The similarity cos(h, tanh(proj h)), which does not know the direction's sign."""
    skew: bool = False
    """Directions are read after a block, and compared and added before it."""
    bare_template: bool = False
    """Texts are read without the template's header of the answer, which is there when the condition is checked."""
    pads_pooled: bool = False
    """The mean over a text's tokens counts the pads of its batch."""
    comparator: bool = False
    """`larger` taken as the library's documentation has it, which is the opposite of what the library does."""


CAST = fit.METHODS["pca_pairwise"]
TABLE: dict[str, Habits] = {
    "the paper's method, aligned": Habits(),
    "+ sign-blind similarity": Habits(sign_blind=True),
    "+ one-layer skew": Habits(skew=True),
    "+ template without the answer's header": Habits(bare_template=True),
    "+ pads pooled": Habits(pads_pooled=True),
    "+ comparator as documented": Habits(comparator=True),
    "as published": Habits(sign_blind=True, skew=True, bare_template=True, pads_pooled=True),
}


def compare_habits(
    folder: Folder, runner: Runner, requests: Requests, refuse: Program, sites: Sequence[Site], pairs: int, judge: Judge,
    max_false_alarms: float, max_new_tokens: int,
) -> None:  # fmt: skip
    """Fits and tunes the harmful condition with each row's habits, and asks the test prompts; the conditions are kept in
    published.safetensors and .json, the answers in published.jsonl."""
    file = folder / "published.safetensors"
    if not folder.has("published.json"):
        conditions, facts = find_points(runner, requests, sites, pairs, max_false_alarms)
        save_conditions(file, conditions)
        folder.write_json("published.json", facts)
    asked = []
    for name, condition in load_conditions(file).items():
        steer = skewed(refuse) if TABLE[name].skew else refuse
        asked += [Asked(name, side, p, steer.when(condition)) for side in SIDES for p in requests.side(side, "test")]
    ask(folder, "published.jsonl", runner, asked, judge, max_new_tokens)


def find_points(
    runner: Runner, requests: Requests, sites: Sequence[Site], pairs: int, max_false_alarms: float
) -> tuple[dict[str, Condition], dict[str, dict]]:
    """Each row's condition, and how good it is."""
    contrast = of_prompts(*([p.text for p in requests.side(side, "fit", pairs)] for side in SIDES))
    conditions: dict[str, Condition] = {}
    facts: dict[str, dict] = {}
    here = runner.remote in (None, "local")
    for name, habits in TABLE.items():
        if habits.pads_pooled and not here:  # see record_with_pads
            continue
        directions = CAST(read(runner, contrast, sites, habits))
        conditions[name], facts[name] = find_point(runner, requests, directions, habits, max_false_alarms)
    return conditions, facts


def read(runner: Runner, contrast: ContrastSet, sites: Sequence[Site], habits: Habits) -> Activations:
    """The mean over each prompt's tokens."""
    reader = bare(runner) if habits.bare_template else runner
    return record_with_pads(reader, contrast, sites, PROMPT) if habits.pads_pooled else reader.record(contrast, sites, PROMPT)


def find_point(
    runner: Runner, requests: Requests, directions: Mapping[Place, Direction], habits: Habits, max_false_alarms: float
) -> tuple[Condition, dict]:
    """The best condition on the tune split, and how good it is there and on the test split."""
    score: Score = "cast" if habits.sign_blind else "cosine"
    moved = cast_skew(directions) if habits.skew else directions
    candidates = [Condition(direction, 0.0, score=score) for direction in moved.values()]
    scores = {
        (split, side): runner.scores([p.text for p in requests.side(side, split)], candidates)
        for split in JUDGED for side in SIDES
    }  # fmt: skip
    row, point = best(candidates, scores["tune", "harmful"], scores["tune", "harmless"], max_false_alarms)
    condition = ~placed(candidates[row], point) if habits.comparator else placed(candidates[row], point)
    fired = {place: [condition.holds(score) for score in found[row].tolist()] for place, found in scores.items()}
    quality = {split: asdict(tune.quality(*(fired[split, side] for side in SIDES))) for split in JUDGED}
    return condition, {"condition": str(condition), "quality": quality}


def skewed(program: Program) -> Program:
    """The additions, one layer before."""
    directions, strength, span = parts(program)
    return add(cast_skew(directions), strength, span)
