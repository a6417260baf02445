"""The nnsight traces, and the only file that imports nnsight. Each function owns one `with` block: it reads, computes through
`nnsteer.ops`, assigns, and brings plain tensors home. Modules are visited in the order of the forward pass."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import nnsight
import torch
from nnsight import TransformersModel, save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nnsteer import ops
from nnsteer.chat import Batch

Envoy: TypeAlias = TransformersModel
"""nnsight's view of a model."""
Remote: TypeAlias = str | None
"""Where a trace runs: None here, "local" here through nnsight's simulation of a server."""


GREEDY = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None,
    "use_cache": True,
}  # fmt: skip
"""The checkpoint's own generation settings are not used; samples come from noise on the logits (`ops.gumbel`)."""


def open_envoy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Envoy:
    """Wraps a loaded model, and has nnsight ship `nnsteer.ops` by source wherever a trace runs."""
    nnsight.register(ops)
    return TransformersModel(model, tokenizer=tokenizer)


def read_means(
    envoy: Envoy, remote: Remote, places: list[dict], batch: Batch, touched: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """The mean state over the touched tokens [row, token] at each place, in forward order, fp32 [row, hidden] each, and the
    mean norm of those states, fp32 [row] each. A place has a module's `path`, `input` (whether it is meant) and `columns`."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    modules = [(envoy.get(place["path"]), place) for place in places]
    with torch.no_grad(), envoy.trace(inputs, remote=remote, use_cache=False, logits_to_keep=1) as reading:
        states, norms = [], []
        for module, place in modules:
            h = ops.columns(ops.states(module, place["input"]), place["columns"])
            states.append(ops.mean_over(h, touched).cpu())
            norms.append(ops.mean_over(h.float().norm(dim=-1, keepdim=True), touched)[:, 0].cpu())
        out = save({"states": states, "norms": norms})
        reading.stop()
    return out["states"], out["norms"]


def read_scores(envoy: Envoy, remote: Remote, plan: dict, batch: Batch) -> list[Tensor]:
    """Every condition's score on the unsteered prompts, in a pass that stops at the last condition: fp32 [row] each."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    mask, conditions = batch.mask, plan["conditions"]
    lengths, offsets = batch.prompt_lengths, ops.prefill_offsets(mask, batch.response_lengths)
    visits = [(envoy.get(v["path"]), v["input"], v["conditions"]) for v in plan["visits"] if v["conditions"]]
    with torch.no_grad(), envoy.trace(inputs, remote=remote, use_cache=False, logits_to_keep=1) as scoring:
        scores = {}
        for module, is_input, wanted in visits:
            h = ops.states(module, is_input)
            for c in wanted:
                scores[c] = ops.score(h, conditions[c], offsets, lengths, mask).cpu()
        out = save({"scores": scores})
        scoring.stop()
    return [out["scores"][c] for c in range(len(conditions))]


def steered_logits(envoy: Envoy, remote: Remote, plan: dict, batch: Batch, ahead: list[Tensor] | None, last: int) -> Tensor:
    """One steered pass over prompts and responses, without a cache: the logits of the `last` tokens of each row, 0 for all,
    fp32 [row, token, vocab]."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    mask, conditions = batch.mask, plan["conditions"]
    lengths, offsets = batch.prompt_lengths, ops.prefill_offsets(mask, batch.response_lengths)
    verdicts = {} if ahead is None else decide(ahead, conditions)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    with torch.no_grad(), envoy.trace(inputs, remote=remote, use_cache=False, logits_to_keep=last):
        for module, v in visits:
            if ahead is None:
                for c in v["conditions"]:
                    scores = ops.score(ops.states(module, v["input"]), conditions[c], offsets, lengths, mask)
                    verdicts[c] = ops.verdict(scores, conditions[c])
            if v["edits"]:
                ops.edit(module, v, offsets, lengths, mask, verdicts)
        out = save({"logits": ops.logits_of(envoy.output).float().cpu()})
    return out["logits"]


def generate(
    envoy: Envoy,
    remote: Remote,
    plan: dict,
    batch: Batch,
    ahead: list[Tensor] | None,
    max_new_tokens: int,
    sampling: dict | None,
    head: str,
) -> tuple[Tensor, list[Tensor]]:
    """Steered generation with a cache: token ids [row, prompt + new], padded after each row's end, and the conditions'
    scores, fp32 [row] each. Verdicts are taken once, in the prefill or from `ahead`, and live only in this call."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    mask, lengths, responses, conditions = batch.mask, batch.prompt_lengths, batch.response_lengths, plan["conditions"]
    verdicts = {} if ahead is None else decide(ahead, conditions)
    visits = [(envoy.get(v["path"]), v) for v in plan["visits"]]
    last = torch.ones(mask.shape[0], 1, dtype=mask.dtype)
    lm_head = envoy.get(head) if head else envoy
    with warnings.catch_warnings():
        # all rows may end before max_new_tokens; the second invoke brings the results home all the same
        warnings.filterwarnings("ignore", message=".*was never reached.*")
        with envoy.generate(remote=remote, max_new_tokens=max_new_tokens, **GREEDY) as generating:
            with generating.invoke(inputs):
                scores = {}
                for step in generating.iter[:max_new_tokens]:
                    prefill = step == 0
                    seen = mask if prefill else last
                    offsets = ops.prefill_offsets(mask, responses) if prefill else ops.decode_offsets(mask, step)
                    for module, v in visits:
                        if not prefill and not v["decodes"]:
                            continue
                        if prefill and ahead is None:
                            for c in v["conditions"]:
                                h = ops.states(module, v["input"])
                                scores[c] = ops.score(h, conditions[c], offsets, lengths, mask).cpu()
                                verdicts[c] = ops.verdict(scores[c], conditions[c])
                        if v["edits"]:
                            ops.edit(module, v, offsets, lengths, seen, verdicts)
                    if sampling is not None:
                        noisy = ops.gumbel(ops.logits_of(lm_head.output), step, **sampling)
                        lm_head.output = ops.with_logits(lm_head.output, noisy)
            with generating.invoke():
                out = save({"ids": generating.result.cpu(), "scores": scores})
    found = ahead if ahead is not None else [out["scores"][c] for c in range(len(conditions))]
    return out["ids"], found


def decide(scores: list[Tensor], conditions: list[dict]) -> dict:
    """Verdicts by condition number."""
    return {c: ops.verdict(score, conditions[c]) for c, score in enumerate(scores)}
