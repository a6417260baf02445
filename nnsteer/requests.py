"""The data of a refusal experiment: harmful and harmless requests, refusal and compliance openers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnsteer.prompts import Prompt, Splits, load_openers, load_prompts

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
        splits = self.harmful if side == "harmful" else self.harmless
        return {"fit": splits.fit, "tune": splits.tune, "test": splits.test}[split][:n]

    def fingerprints(self) -> dict[str, str]:
        """A hash of each side's prompts."""
        return {"harmful": self.harmful.fingerprint(), "harmless": self.harmless.fingerprint()}


def load_requests(harmful: str, harmless: str, refusals: str, compliances: str, seed: int) -> Requests:
    """Reads four SOURCEs (see `prompts.parse_source`)."""
    return Requests(
        load_prompts(harmful, seed), load_prompts(harmless, seed), tuple(load_openers(refusals)), tuple(load_openers(compliances))
    )
