"""What is made of logits inside a trace, as plain functions of tensors: little of them comes home from a server.

This file travels to a server, by source, as `ops` does: torch alone, no decorators, no defaults. What a steered pass can end with
(`Runner.taken`) is a function of logits [row, token, vocab] and of what is wanted of them.
"""

from __future__ import annotations

import torch


def logits_of(output):
    """The logits in what an unembedding or a whole model returns."""
    return output if isinstance(output, torch.Tensor) else output["logits"]


def with_logits(output, new):
    """The same output with other logits."""
    return new if isinstance(output, torch.Tensor) else type(output)(**(dict(output) | {"logits": new}))


def gumbel(logits, step, temperature, seed, row_ids):
    """Logits whose argmax is a sample at `temperature`: each row has noise of its own, drawn from the seed, its number in
    the call and the step, so that neither the batch nor the machine it is in changes the sample. [row, 1, vocab]"""
    noise = torch.empty(logits.shape[0], logits.shape[-1])
    for i, row in enumerate(row_ids):
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + row) * 65_537 + step) % (2**63))
        noise[i].exponential_(generator=generator)
    return logits.float() / temperature - noise.log().to(logits.device)[:, None]


def token_losses(logits, ids):
    """Negative log-likelihood in nats of each token given those before it, [row, token - 1]."""
    before = logits[:, :-1].float()
    return before.logsumexp(-1) - before.gather(-1, ids[:, 1:, None].to(logits.device))[..., 0]


def whole(logits, _wanted):
    """All of them, fp32 [row, token, vocab]."""
    return logits.float().cpu()


def predictions(logits, ids):
    """Of each token of `ids` [row, token] but the first: its loss in nats, and how many tokens are more likely, [row, token - 1]
    each. Of tokens that are equally likely the first is the more likely one, as for an argmax."""
    before, given = logits[:, :-1], ids[:, 1:, None].to(logits.device)
    own = before.gather(-1, given)
    earlier = torch.arange(logits.shape[-1], device=logits.device) < given
    above = ~(before <= own) | ((before == own) & earlier)  # where there is a NaN, all are
    return {"losses": token_losses(logits, ids).cpu(), "above": above.sum(-1).cpu()}


def choices(logits, tokens):
    """After the last token: the most likely one [row], and the logits of `tokens` [row, choice]."""
    last = logits[:, -1].float()
    return {"top": last.argmax(-1).cpu(), "asked": last.gather(-1, tokens.to(last.device)).cpu()}


def divergences(logits, others):
    """KL in nats of each row's distribution after the last token from that of the row that `others` [row] names, fp64 [row]."""
    logs = logits[:, -1].float().cpu().double().log_softmax(-1)
    return torch.nn.functional.kl_div(logs[others], logs, reduction="none", log_target=True).sum(-1)
