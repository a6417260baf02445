"""What a program does to given prompts: which rows, tokens and sites change, pass by pass, and by
how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table
from torch import Tensor

from nnsteer.model.attach import Pass, hooked
from nnsteer.model.lower import distinct_conditions, lower
from nnsteer.model.runner import Runner
from nnsteer.program.program import Program
from nnsteer.texts.contrast import Text, as_texts


@dataclass(frozen=True)
class Change:
    """One row at one module in one pass: the changed tokens, by offset from the prompt's end (-1
    its last token), and the length of each one's change as a fraction of its state's norm."""

    step: int
    """0 for the prefill, then one for each generated token that is fed back."""
    row: int
    site: str
    tokens: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    """Every change, and for each prompt the conditions' scores and verdicts."""

    prompts: tuple[str, ...]
    conditions: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    fired: tuple[tuple[bool, ...], ...]
    sites: tuple[str, ...]
    """Those with edits, in forward order."""
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        table = Table("row", "pass", "site", "tokens", "mean change / norm", "largest")
        for change in self.changes:
            name = "prefill" if change.step == 0 else f"decode {change.step}"
            shares = f"{mean(change.shares):.3f}", f"{max(change.shares):.3f}"
            table.add_row(str(change.row), name, change.site, ranges(change.tokens), *shares)
        text = StringIO()
        console = Console(file=text, width=120, force_jupyter=False)
        for row, prompt in enumerate(self.prompts):
            console.print(f"row {row}: {prompt}", markup=False, highlight=False)
            verdicts = zip(self.conditions, self.scores[row], self.fired[row], strict=True)
            for condition, score, fired in verdicts:
                verdict = f"{score:.4f}, {'holds' if fired else 'does not hold'}"
                console.print(f"    {condition}: {verdict}", highlight=False)
        console.print(table if self.changes else self.why_nothing())
        return text.getvalue()

    def why_nothing(self) -> str:
        """Why no state changes."""
        if not self.sites:
            return "nothing changes: the program has no steps"
        fired = any(map(any, self.fired))
        held = "no condition holds" if self.conditions and not fired else "no token is steered"
        return f"nothing changes: {held}"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def explain(
    runner: Runner, program: Program, prompts: Sequence[str], new_tokens: int = 3
) -> Explanation:
    """Runs the program on the prompts, at most `new_tokens` tokens far, and notes each change on
    the way."""
    runner.check(program)
    prompts = as_texts("prompts", prompts)
    batch = runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in prompts]))
    changes: list[Change] = []

    def observe(visit: dict, running: Pass, before: Tensor, after: Tensor) -> None:
        changes.extend(changes_of(visit, running, before, after))

    inputs = {name: tensor.to(runner.hf.device) for name, tensor in batch.inputs.items()}
    with hooked(runner.hf, program, observe):
        runner.hf.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, num_beams=1)
    conditions = distinct_conditions([program])
    scores = runner.scores(prompts, conditions).mT.tolist() if conditions else [()] * len(prompts)
    fired = [[c.holds(s) for c, s in zip(conditions, row, strict=True)] for row in scores]
    visits = lower([program], runner.layout)["visits"]
    return Explanation(
        prompts=tuple(prompts),
        conditions=tuple(map(str, conditions)),
        scores=tuple(map(tuple, scores)),
        fired=tuple(map(tuple, fired)),
        sites=tuple(visit["site"] for visit in visits if visit["edits"]),
        changes=tuple(changes),
    )


def changes_of(visit: dict, running: Pass, before: Tensor, after: Tensor) -> list[Change]:
    """The rows that a visit changed."""
    moved = (after.float() - before.float()).norm(dim=-1)
    share = moved / before.float().norm(dim=-1)
    changes = []
    for row in (moved > 0).any(1).nonzero()[:, 0].tolist():
        columns = (moved[row] > 0).nonzero()[:, 0]
        tokens = tuple(running.tokens["offsets"][row, columns].tolist())
        shares = tuple(share[row, columns].tolist())
        changes.append(Change(running.number, row, visit["site"], tokens, shares))
    return changes


def ranges(tokens: tuple[int, ...]) -> str:
    """Consecutive offsets as `first..last`."""
    parts: list[list[int]] = []
    for token in tokens:
        if parts and token == parts[-1][1] + 1:
            parts[-1][1] = token
        else:
            parts.append([token, token])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in parts)


def figure(explanation: Explanation, path: Path) -> None:
    """A picture: for each prompt the changes by site and token, shaded by their length in norms of
    the state."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    sites, prompts = explanation.sites, explanation.prompts
    height = 1.2 + len(prompts) * (0.5 + 0.25 * len(sites))
    fig = Figure(figsize=(8, height), layout="constrained")
    axes = fig.subplots(len(prompts), 1, sharex=True, squeeze=False)[:, 0]
    largest = max((max(change.shares) for change in explanation.changes), default=1.0)
    for row, (axis, prompt) in enumerate(zip(axes, prompts, strict=True)):
        axis.set_title(f"{row}: {prompt}"[:90], fontsize=9, loc="left")
        axis.axvline(-0.5, color="black", linewidth=0.8)
        axis.set_yticks(range(len(sites)), sites, fontsize=8)
        axis.set_ylim(-0.6, max(len(sites), 1) - 0.4)
    for change in explanation.changes:
        axis, height = axes[change.row], sites.index(change.site)
        for token, share in zip(change.tokens, change.shares, strict=True):
            shade = 0.15 + 0.85 * share / largest
            axis.barh(height, 0.9, left=token - 0.45, color="tab:blue", alpha=shade)
    axes[-1].margins(x=0.02)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel(
        "token, from the end of the prompt (line); darker is a larger change for the state's norm"
    )
    fig.savefig(path, dpi=120)
