"""What a run would send and bring home, from the model's config alone."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PretrainedConfig

TOKENS = 40  # a prompt with its template
TOKEN_BYTES = 16  # its id and its mask, before compression
BLOCK = 12_000  # the source of a block
ANSWER_TOKENS = 64
STATES_AT_ONCE = 2**28  # numbers (a gibibyte) that one request may gather on the server
PROMPTS_AT_ONCE = 1024  # whose scores one request asks for


class Estimate(NamedTuple):
    """One step of a run; bytes up and down are at most so many, but for compression."""

    step: str
    requests: int
    up: int
    down: int

    def __str__(self) -> str:
        traffic = f"{size(self.up)} up, {size(self.down)} down"
        return f"{self.step}: {self.requests:,} requests, {traffic}"


def pairs_at_once(sites: int, hidden: int) -> int:
    """How many pairs of texts one request reads at so many sites."""
    return max(1, STATES_AT_ONCE // (2 * sites * hidden))


def estimates(config: PretrainedConfig, prompts: int, batch_size: int) -> list[Estimate]:
    """Fitting by mean difference or pca_pairwise and scoring at every layer, and generating, for
    `prompts` prompts a side."""
    text = config.get_text_config()
    layers, hidden = text.num_hidden_layers, text.hidden_size
    fits = -(-prompts // pairs_at_once(layers, hidden))
    scorings = 2 * -(-prompts // PROMPTS_AT_ONCE)
    batches = 2 * -(-prompts // batch_size)
    tokens = 2 * prompts * TOKENS * TOKEN_BYTES
    directions = layers * (2 * hidden + 2) * 4
    parts = fits * layers * 64 * (hidden + prompts // fits) * 4
    answers = 2 * prompts * (TOKENS + ANSWER_TOKENS) * 8
    steered = BLOCK + directions
    steps = [
        ("directions, mean difference", fits, fits * BLOCK, fits * directions),
        ("directions, pca_pairwise", fits, fits * BLOCK, directions if fits == 1 else parts),
        ("scores of every layer", scorings, scorings * steered, 2 * prompts * layers * 4),
        (f"answers of {ANSWER_TOKENS} tokens", batches, batches * steered, answers),
    ]
    return [Estimate(step, requests, tokens + up, down) for step, requests, up, down in steps]


def size(count: int) -> str:
    """Bytes for a person."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
