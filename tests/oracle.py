"""Steering written a second time, the slow and plain way: PyTorch hooks, one row, no padding, no cache, float64 arithmetic.
It reads the same `Program` and shares no code with the package's executors."""

from __future__ import annotations

import torch

from nnsteer.program import Ablate, Add, Affine, Condition, Program, Step


def blocks(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def run(model, ids, hooks):
    """One forward pass under {layer: function of h [token, hidden]}; logits [token, vocab]."""
    handles = []
    for layer, change in hooks:

        def hook(module, inputs, output, change=change):
            h = output if isinstance(output, torch.Tensor) else output[0]
            new = change(h[0])[None]
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        handles.append(blocks(model)[layer].register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].float()
    finally:
        for handle in handles:
            handle.remove()


def states(model, ids, layer):
    """The block's output for one unpadded text, [token, hidden]."""
    seen = []
    run(model, ids, [(layer, lambda h: seen.append(h.clone()) or h)])
    return seen[0].double()


def score(model, prompt_ids, condition: Condition) -> float:
    h = states(model, prompt_ids, condition.site.layer)
    tokens = range(len(prompt_ids))
    kept = [h[t] for t in tokens if in_span(t - len(prompt_ids), condition.span)]
    mean = sum(kept) / len(kept)
    c = condition.direction.vector.double()
    other = c
    if condition.score == "cast":
        other = torch.tanh((torch.outer(c, c) / c.dot(c)) @ mean)
    return (mean.dot(other) / (mean.norm() * other.norm())).item()


def fires(model, prompt_ids, condition: Condition) -> bool:
    s = score(model, prompt_ids, condition)
    return s > condition.threshold if condition.fires_when == "above" else not s > condition.threshold


def in_span(offset, span) -> bool:
    return (span.first is None or offset >= span.first) and (span.stop is None or offset < span.stop)


def edited(op, x):
    """One token's state after an op, from the formula in the op's own source."""
    r = op.direction.vector.double()
    x = x.double()
    projection = x.dot(r) / r.dot(r) * r
    match op:
        case Add(strength=a):
            return x + a * r
        case Ablate(strength=a):
            return x - a * projection
        case Affine(direction=d, alpha=a):
            reference = d.origin.double().dot(r) / r.dot(r) * r
            return x - projection + reference + a * r


def change(step: Step, prompt_length: int):
    def apply(h):
        new = h.clone()
        for t in range(len(h)):
            if in_span(t - prompt_length, step.span):
                new[t] = edited(step.op, new[t]).to(h.dtype)
        return new

    return apply


def hooks(model, prompt_ids, program: Program):
    live = [step for step in program.steps if step.when is None or fires(model, prompt_ids, step.when)]
    return [(step.site.layer, change(step, len(prompt_ids))) for step in live]


def logits(model, prompt_ids, response_ids, program: Program):
    """From the prompt's last position on, [1 + response, vocab]."""
    all_logits = run(model, [*prompt_ids, *response_ids], hooks(model, prompt_ids, program))
    return all_logits[len(prompt_ids) - 1 :]


def generate(model, prompt_ids, program: Program, max_new_tokens: int, eos: int):
    """Greedy tokens, each from a full pass over everything so far."""
    changes = hooks(model, prompt_ids, program)
    out: list[int] = []
    while len(out) < max_new_tokens:
        token = run(model, [*prompt_ids, *out], changes)[-1].argmax().item()
        if token == eos:
            break
        out.append(token)
    return out
