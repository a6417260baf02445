"""The data of a refusal experiment: harmful and harmless requests, refusal and compliance
openers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnsteer.texts.contrast import ContrastSet, of_prompts, of_responses
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt, Splits, load_openers, load_prompts

Side = Literal["harmful", "harmless"]
Split = Literal["fit", "tune", "test"]
SIDES: tuple[Side, Side] = ("harmful", "harmless")


@dataclass(frozen=True)
class Requests:
    """Both sides' prompts in their splits, and both sorts of openers."""

    harmful: Splits
    harmless: Splits
    refusals: tuple[str, ...]
    compliances: tuple[str, ...]

    def side(self, side: Side, split: Split, n: int | None = None) -> tuple[Prompt, ...]:
        """The first `n` prompts of a split on one side."""
        return (self.harmful if side == "harmful" else self.harmless).of(split)[:n]

    def texts(self, side: Side, split: Split, n: int | None = None) -> list[str]:
        """The same without their kinds."""
        return [prompt.text for prompt in self.side(side, split, n)]

    def both(self, split: Split, n: int | None = None) -> tuple[list[str], list[str]]:
        """Harmful and harmless texts of a split, the first `n` a side."""
        return self.texts("harmful", split, n), self.texts("harmless", split, n)

    def sets(self, split: Split, n: int | None = None) -> tuple[PromptSet, PromptSet]:
        """The same prompts as sets to be asked: `harmful test`, `harmless test`."""
        return (
            PromptSet(f"harmful {split}", self.side("harmful", split, n)),
            PromptSet(f"harmless {split}", self.side("harmless", split, n)),
        )

    def pairs(self, n: int) -> ContrastSet:
        """The first `n` prompts a side of the fit split, harmful against harmless."""
        return of_prompts(*self.both("fit", n))

    def sides(self, n: int) -> dict[str, tuple[list[str], list[str]]]:
        """Harmful and harmless texts by split; of the fit split, the first `n` a side."""
        return {"fit": self.both("fit", n), "tune": self.both("tune"), "test": self.both("test")}

    def fingerprints(self) -> dict[str, str]:
        """A hash of each side's prompts."""
        return {"harmful": self.harmful.fingerprint(), "harmless": self.harmless.fingerprint()}


def load_requests(
    harmful: str, harmless: str, refusals: str, compliances: str, seed: int
) -> Requests:
    """Reads four SOURCEs (see `texts.source`)."""
    sides = load_prompts(harmful, seed), load_prompts(harmless, seed)
    return Requests(*sides, tuple(load_openers(refusals)), tuple(load_openers(compliances)))


def load_contrast(
    positive: str, negative: str, prompts: str | None, pairs: int, seed: int
) -> ContrastSet:
    """At most `pairs` pairs of texts from the fit splits of SOURCEs: two sides of prompts; or, with
    `prompts`, two sorts of openers after the same prompts."""

    def fit_texts(source: str) -> list[str]:
        return [prompt.text for prompt in load_prompts(source, seed).fit[:pairs]]

    if prompts is None:
        return of_prompts(fit_texts(positive), fit_texts(negative))
    openers = load_openers(positive), load_openers(negative)
    return of_responses(fit_texts(prompts), *openers, seed)
