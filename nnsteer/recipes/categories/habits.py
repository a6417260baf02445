"""What the habits of CAST's published code cost: each alone, and all together, on one model and at
one dose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from nnsteer import fit
from nnsteer.fit.threshold import quality
from nnsteer.model.runner import Runner
from nnsteer.program.direction import Directions
from nnsteer.program.names import Method, Score
from nnsteer.program.program import add
from nnsteer.program.quirks import cast_skew
from nnsteer.program.site import Place
from nnsteer.program.span import PROMPT, Reading
from nnsteer.progress import Watch
from nnsteer.recipes.published import record_with_pads, without_header
from nnsteer.recipes.refusal.options import SPANS, Config, Doses
from nnsteer.study.cells import Variant
from nnsteer.study.choose import Dose
from nnsteer.study.run import Run
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import Requests


@dataclass(frozen=True)
class Habits:
    """What the published code does; off, it is done as in nnsteer."""

    sign_blind: bool = False
    """The similarity cos(h, tanh(proj h)), which does not know the direction's sign."""
    skew: bool = False
    """Directions are read after a block, and compared and added before it."""
    bare_template: bool = False
    """Texts are read without the template's header of the answer, which is there when the condition
    is checked."""
    pads_pooled: bool = False
    """The mean over a text's tokens counts the pads of its batch."""
    comparator: bool = False
    """`larger` taken as the library's documentation has it, which is the opposite of what the
    library does."""

    def directions(
        self,
        runner: Runner,
        contrast: ContrastSet,
        sites: Sequence[Place],
        over: Reading,
        method: Method,
        watch: Watch,
    ) -> Directions:
        """A direction per site, as it is read with these habits."""
        reader = without_header(runner) if self.bare_template else runner
        record = record_with_pads if self.pads_pooled else Runner.record
        directions = fit.method_named(method)(record(reader, contrast, sites, over, watch))
        return cast_skew(directions) if self.skew else directions


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
    run: Run,
    config: Config,
    requests: Requests,
    sites: Sequence[Place],
    doses: Doses,
    dose: Dose,
) -> None:
    """Fits and tunes the harmful condition with each row's habits, keeps in published.json how good
    it is, and asks the test prompts, adding the dose where it fires."""
    skewed = add(cast_skew(doses.directions[dose]), dose.strength, SPANS[dose.span])
    pairs = requests.pairs(config.condition_pairs)
    sides = {"tune": requests.both("tune"), "test": requests.both("test")}
    facts, variants = {}, []
    for number, (name, habits) in enumerate(TABLE.items()):
        if habits.pads_pooled and run.runner.remote not in (None, "local"):
            continue  # see record_with_pads
        file = f"published_{number}"
        score: Score = "cast" if habits.sign_blind else "cosine"
        directions = run.fit(file, pairs, sites, PROMPT, "pca_pairwise", habits.directions)
        condition = run.condition(file, directions, sides, score, config.max_false_alarms)
        if habits.comparator:
            condition = ~condition
        qualities = {}
        for split, scores in run.folder.read_json(f"{file}.json")["scores"].items():
            fired = (list(map(condition.holds, side)) for side in scores.values())
            qualities[split] = asdict(quality(*fired))
        facts[name] = {"condition": str(condition), "quality": qualities}
        steer = skewed if habits.skew else doses.programs[dose]
        variants.append(Variant(name, steer.when(condition)))
    run.folder.write_json("published.json", facts)
    run.ask(variants, requests.sets("test"))
