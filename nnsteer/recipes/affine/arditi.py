"""Where r is read: the selection of Arditi et al. 2024 (*Refusal in Language Models Is Mediated by a Single Direction*), on the
tune split.

A candidate is the mean difference at one of the template's tokens after the prompt, at one block's input, in the first 80 % of
the layers. Of those that make the model refuse harmless prompts when they are added there (induce score at least 0) and
hardly change what it says to them when they are ablated everywhere (KL at most `max_kl`), the one is taken whose ablation refuses
harmful prompts least. A refusal score is log p - log (1 - p) of the refusal tokens' total probability p after the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor
from torch.nn.functional import kl_div

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.model.runner import Runner
from nnsteer.program import program
from nnsteer.program.direction import Direction
from nnsteer.program.files import load_directions, save_directions
from nnsteer.program.identity import require_same
from nnsteer.program.op import Ablate
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Site, Stream
from nnsteer.program.span import Positions
from nnsteer.progress import bar
from nnsteer.recipes.affine.refused import next_logs, refusal_scores, refusal_tokens
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import Requests

EARLY = 0.8  # of the layers
EVERYWHERE: tuple[Stream, ...] = ("block_in", "attn_out", "mlp_out")
ROWS = "arditi_rows.jsonl"


@dataclass(frozen=True)
class Trial:
    """A candidate and its three scores."""

    position: int
    """-1 is the prompt's last token."""
    layer: int
    refusal: float
    """Mean refusal score on harmful prompts, ablated everywhere."""
    kl: float
    """Mean KL(unsteered || ablated) of the next token on harmless prompts, nats."""
    induce: float
    """Mean refusal score on harmless prompts, added once at its site."""


def best_candidate(
    folder: Folder, runner: Runner, requests: Requests, texts: ContrastSet, max_kl: float, prompts: int
) -> Direction:
    """The chosen direction, at the input of a block. Every trial is kept in arditi_rows.jsonl, the choice in layer.json."""
    tokens = refusal_tokens(runner.chat, requests)
    candidates = read_candidates(folder, runner, texts)
    sides = [[p.text for p in requests.side(side, "tune", prompts)] for side in ("harmful", "harmless")]
    trials = {(t.position, t.layer): t for t in (Trial(**line) for line in folder.read_lines(ROWS, ("position", "layer")))}
    with bar("selecting", len(candidates)) as watch:
        watch(len(trials))
        plain = None
        for place, candidate in candidates.items():
            if place not in trials:
                plain = next_logs(runner, sides[1]) if plain is None else plain
                trials[place] = tried(runner, place, candidate, sides, plain, tokens)
                folder.append(ROWS, [asdict(trials[place])])
                watch(1)
    best = choose(list(trials.values()), max_kl)
    name = f"{Site(best.layer, 'block_in')}, position {best.position}"
    decoded = [runner.chat.tokenizer.decode([token]) for token in tokens]
    facts = {"chosen": name, "selection": asdict(best), "max_kl": max_kl, "refusal_tokens": decoded}
    folder.write_json("layer.json", facts | {"candidates": [asdict(trial) for trial in trials.values()]})
    return candidates[best.position, best.layer]


def choose(trials: Sequence[Trial], max_kl: float) -> Trial:
    """The lowest refusal score within both limits. Raises UserError where no candidate keeps them."""
    within = [trial for trial in trials if trial.kl <= max_kl and trial.induce >= 0]
    if not within:
        raise UserError(
            f"--layer arditi: no candidate has a KL of at most {max_kl:g} (lowest: {min(t.kl for t in trials):.2g}) and an "
            f"induce score of at least 0 (highest: {max(t.induce for t in trials):.2g}); "
            "use --layer tuned, or where KL is the limit raise --max-kl"
        )
    return min(within, key=lambda trial: (trial.refusal, trial.layer))


def read_candidates(folder: Folder, runner: Runner, texts: ContrastSet) -> dict[tuple[int, int], Direction]:
    """The mean difference at each of the template's last tokens and each early block's input, by (position, layer)."""
    sites = [Site(layer, "block_in") for layer in range(max(1, int(EARLY * runner.layout.num_layers)))]
    found = {}
    for position in range(runner.chat.post_instruction.first or -1, 0):
        file = folder / f"candidates{position}.safetensors"
        if not file.exists():
            with bar(f"reading position {position}", len(texts.positive) + len(texts.negative)) as watch:
                read = runner.moments(texts, sites, Positions((position,)), watch=watch)
            save_directions(file, fit.mean_difference(read).values())
        for direction in load_directions(file).values():
            require_same(str(file), direction.model, runner.model)
            if direction.vector.norm() > 0:  # a position's embedding is the same in all texts
                found[position, direction.site.layer] = direction
    return found


def tried(
    runner: Runner, place: tuple[int, int], candidate: Direction, sides: Sequence[Sequence[str]], plain: Tensor, tokens: list[int]
) -> Trial:
    """A candidate's three scores."""
    sites = [Site(layer, stream) for layer in range(runner.layout.num_layers) for stream in EVERYWHERE]
    ablated = Program(tuple(Step(Ablate(candidate), site) for site in sites))
    harmful, harmless = sides
    refusal = refusal_scores(next_logs(runner, harmful, ablated), tokens).mean().item()
    kl = kl_div(next_logs(runner, harmless, ablated), plain, log_target=True, reduction="batchmean").item()
    added = program.add({candidate.site: candidate})
    return Trial(*place, refusal, kl, refusal_scores(next_logs(runner, harmless, added), tokens).mean().item())
