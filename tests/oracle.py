"""Steering written a second time, the slow and plain way: PyTorch hooks, one row, no padding, no
cache, float64 arithmetic. It reads the same `Program` and shares no code with the package's
executors."""

from __future__ import annotations

import math

import torch

from nnsteer.program.condition import AllOf, Condition
from nnsteer.program.op import (
    Ablate,
    AblateSubspace,
    Add,
    Affine,
    BoundNorm,
    Clamp,
    Custom,
    Edit,
    KeepNorm,
    Rotate,
)
from nnsteer.program.program import Program
from nnsteer.program.site import Head
from nnsteer.program.span import Positions


def module(model, site):
    """The module at which a site's states can be seen, and whether as its input."""
    llama = hasattr(model, "model")
    block = (model.model.layers if llama else model.transformer.h)[site.layer]
    if isinstance(site, Head):
        return (block.self_attn.o_proj if llama else block.attn.c_proj), True
    if site.stream == "attn_out":
        return (block.self_attn if llama else block.attn), False
    return (block.mlp if site.stream == "mlp_out" else block), site.stream == "block_in"


def run(model, ids, changes):
    """One forward pass under [(site, function of the states [token, width])]; logits [token,
    vocab]."""
    handles = []
    for site, change in changes:
        place, is_input = module(model, site)

        def changed(h, change=change, site=site):
            new = h.clone()
            if isinstance(site, Head):
                config = model.config
                width = config.hidden_size // config.num_attention_heads
                own = slice(site.head * width, (site.head + 1) * width)
                new[0, :, own] = change(h[0, :, own])
            else:
                new[0] = change(h[0])
            return new

        def before(_module, args, changed=changed):
            return (changed(args[0]), *args[1:])

        def after(_module, _args, output, changed=changed):
            return (
                changed(output)
                if isinstance(output, torch.Tensor)
                else (changed(output[0]), *output[1:])
            )

        handles.append(
            place.register_forward_pre_hook(before)
            if is_input
            else place.register_forward_hook(after)
        )
    try:
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].float()
    finally:
        for handle in handles:
            handle.remove()


def states(model, ids, site):
    """What is at a site for one unpadded text, [token, width], fp64."""
    seen = []
    run(model, ids, [(site, lambda h: seen.append(h.clone()) or h)])
    return seen[0].double()


def meant(token, prompt_length, span) -> bool:
    """Whether a span means the token with this number in the row."""
    if isinstance(span, Positions):
        return any(token == (at if at >= 0 else prompt_length + at) for at in span.at)
    offset = token - prompt_length
    return (span.first is None or offset >= span.first) and (
        span.stop is None or offset < span.stop
    )


def score(model, prompt_ids, condition: Condition) -> float:
    h = states(model, prompt_ids, condition.site)
    n = len(prompt_ids)
    kept = [h[t] for t in range(n) if meant(t, n, condition.span)]
    mean = sum(kept) / len(kept)
    c = condition.direction.vector.double()
    if condition.score == "projection":
        return (mean.dot(c) / c.norm()).item()
    if condition.score == "coordinate":
        return ((mean - condition.direction.origin.double()).dot(c) / c.dot(c)).item()
    other = c
    if condition.score == "cast":
        other = torch.tanh((torch.outer(c, c) / c.dot(c)) @ mean)
    return (mean.dot(other) / (mean.norm() * other.norm())).item()


def fires(model, prompt_ids, when) -> bool:
    if isinstance(when, Condition):
        s = score(model, prompt_ids, when)
        return s > when.threshold if when.fires_when == "above" else not s > when.threshold
    parts = [fires(model, prompt_ids, part) for part in when.parts]
    return all(parts) if isinstance(when, AllOf) else any(parts)


def along(x, r):
    return x.dot(r) / r.dot(r) * r


def edited(op, x):
    """One token's state after an op, from the formula in the op's own source."""
    match op:
        case Add(direction=d, strength=a):
            return x + a * d.vector.double()
        case Ablate(direction=d, strength=a):
            return x - a * along(x, d.vector.double())
        case AblateSubspace(directions=ds, strength=a):
            spanned = torch.stack([d.vector.double() for d in ds]).mT  # [hidden, rank]
            return x - a * spanned @ torch.linalg.lstsq(spanned, x[:, None]).solution[:, 0]
        case Affine(direction=d, alpha=a):
            r = d.vector.double()
            return x - along(x, r) + along(d.origin.double(), r) + a * r
        case Clamp(direction=d, value=value):
            r = d.vector.double()
            return x - along(x, r) + value * r
        case Rotate(first=first, second=second, degrees=degrees):
            one = first.vector.double() / first.vector.double().norm()
            two = second.vector.double() - along(second.vector.double(), one)
            two = two / two.norm()
            length = math.hypot(x.dot(one), x.dot(two))
            angle = math.radians(degrees)
            return (
                x
                - along(x, one)
                - along(x, two)
                + length * (math.cos(angle) * one + math.sin(angle) * two)
            )
        case Edit(editor=e):
            side = (
                None if e.gate is None else x.dot(e.gate.vector.double()).item() > e.gate.threshold
            )
            if side is not None and side != e.gate.above:
                return x
            matrix = torch.eye(len(x)).double() - e.left.double().mT @ e.right.double()
            return matrix @ (x - e.center.double()) + e.center.double() + e.shift.double()
        case Custom(function=function, tensors=tensors):
            return function(x[None, None].float(), *tensors)[0, 0].double()
        case KeepNorm(op=inner):
            new = edited(inner, x)
            return new * x.norm() / new.norm()


def change(step, prompt_length):
    def apply(h):
        new = h.clone()
        tokens = [t for t in range(len(h)) if meant(t, prompt_length, step.span)]
        op = step.op.op if isinstance(step.op, BoundNorm) else step.op
        for t in tokens:
            new[t] = edited(op, h[t].double()).to(h.dtype)
        if isinstance(step.op, BoundNorm):
            # a cached run sees the prompt in one pass and every later token in one of its own
            passes = [
                [t for t in tokens if t < prompt_length],
                *([t] for t in tokens if t >= prompt_length),
            ]
            for group in passes:
                if any(new[t].double().norm() > h[t].double().norm() for t in group):
                    for t in group:
                        new[t] = new[t] * h[t].norm() / new[t].norm()
        return new

    return apply


def changes(model, prompt_ids, program: Program):
    live = [
        step for step in program.steps if step.when is None or fires(model, prompt_ids, step.when)
    ]
    return [(step.site, change(step, len(prompt_ids))) for step in live]


def logits(model, prompt_ids, response_ids, program: Program):
    """From the prompt's last position on, [1 + response, vocab]."""
    all_logits = run(model, [*prompt_ids, *response_ids], changes(model, prompt_ids, program))
    return all_logits[len(prompt_ids) - 1 :]


def generate(model, prompt_ids, program: Program, max_new_tokens: int, eos: int):
    """Greedy tokens, each from a full pass over everything so far."""
    made = changes(model, prompt_ids, program)
    out: list[int] = []
    while len(out) < max_new_tokens:
        token = run(model, [*prompt_ids, *out], made)[-1].argmax().item()
        if token == eos:
            break
        out.append(token)
    return out
