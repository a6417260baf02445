"""What is made of logits inside a trace, so that little comes home from a server. What a steered
pass can end with (`Runner.reduce_logits`) is a function of logits [row, token, vocab] and what is
wanted.

This file travels to a server, by source: torch alone, no decorators, no defaults.
"""

from __future__ import annotations

import torch


def logits_of(output):
    """The logits in what an unembedding or a whole model returns."""
    return output if isinstance(output, torch.Tensor) else output["logits"]


def with_logits(output, new):
    """The same output with other logits."""
    if isinstance(output, torch.Tensor):
        return new
    return type(output)(**(dict(output) | {"logits": new}))


def gumbel(logits, step, temperature, seed, row_ids):
    """Logits whose argmax is a sample at `temperature`: each row has noise of its own, drawn from
    the seed, its number in the call and the step, so that neither the batch nor the machine it is
    in changes the sample. [row, 1, vocab]"""
    noise = torch.empty(logits.shape[0], logits.shape[-1])
    for i, row in enumerate(row_ids):
        chance = ((seed * 1_000_003 + row) * 65_537 + step) % (2**63)
        noise[i].exponential_(generator=torch.Generator().manual_seed(chance))
    return logits.float() / temperature - noise.log().to(logits.device)[:, None]


def whole(logits, _wanted):
    """All of them, fp32 [row, token, vocab]."""
    return logits.float().cpu()


def losses(logits, ids):
    """Negative log-likelihood in nats of each token of `ids` [row, token] given those before it,
    [row, token - 1]; logits of tokens before them are left out."""
    before = logits[:, -ids.shape[1] :][:, :-1]
    pairs = zip(before, ids[:, 1:, None].to(logits.device), strict=True)
    rows = [row.float().logsumexp(-1) - row.gather(-1, token)[..., 0] for row, token in pairs]
    return torch.stack(rows).cpu()


def ranks(logits, ids):
    """How many tokens are more likely than each of `ids` [row, token] after those before it, [row,
    token - 1]; of equally likely tokens the first is the more likely one, as for an argmax."""
    pairs = zip(logits[:, :-1], ids[:, 1:, None].to(logits.device), strict=True)
    return torch.stack([row_ranks(row, token) for row, token in pairs]).cpu()


def row_ranks(logits, tokens):
    """The ranks of one row, which fits a processor's cache."""
    given = logits.gather(-1, tokens)
    above = logits.shape[-1] - (logits <= given).sum(-1)  # all, where the logit is not a number
    tied = (logits == given).sum(-1) > 1
    earlier = torch.arange(logits.shape[-1], device=logits.device) < tokens[tied]
    above[tied] += ((logits[tied] == given[tied]) & earlier).sum(-1)
    return above


def choices(logits, tokens):
    """After the last token: the most likely one [row], and the logits of `tokens` [row, choice]."""
    last = logits[:, -1].float()
    return {"top": last.argmax(-1).cpu(), "asked": last.gather(-1, tokens.to(last.device)).cpu()}


def divergences(logits, others):
    """KL in nats of each row's distribution after the last token from that of the row that `others`
    [row] names, fp64 [row]."""
    logs = logits[:, -1].float().cpu().double().log_softmax(-1)
    return torch.nn.functional.kl_div(logs[others], logs, reduction="none", log_target=True).sum(-1)
