"""pyvene: states collected at the last token, of which the mean difference is taken here; additions
as interventions."""

from __future__ import annotations

import torch
from pyvene import AdditionIntervention, CollectIntervention, IntervenableConfig, IntervenableModel

from benchmarks.peers.driver import generated, serve, tokenised


def prepare(job, model, tokenizer, tensors):
    if job.kind == "extract":
        layers = range(model.config.num_hidden_layers)
        sites = [
            {"layer": i, "component": "block_output", "intervention_type": CollectIntervention}
            for i in layers
        ]
        reading = IntervenableModel(IntervenableConfig(sites), model=model)

        def mean(texts):
            read = []
            for start in range(0, len(texts), job.batch_size):
                batch = tokenizer(
                    texts[start : start + job.batch_size], padding=True, return_tensors="pt"
                )
                inputs = {
                    "input_ids": batch["input_ids"],
                    "attention_mask": batch["attention_mask"],
                }
                (_, states), _ = reading(
                    base=inputs, unit_locations={"base": inputs["input_ids"].shape[1] - 1}
                )
                read.append(torch.stack([state[:, 0] for state in states], 1))
            return torch.cat(read).mean(0)

        return {
            "mean_difference": lambda: {
                str(i): v for i, v in enumerate(mean(job.positive) - mean(job.negative))
            }
        }
    batches = tokenised(job, tokenizer)
    sites = [
        {
            "layer": int(layer),
            "component": "block_output",
            "intervention": AdditionIntervention(
                source_representation=added, embed_dim=model.config.hidden_size
            ),
        }
        for layer, added in tensors.items()
    ]
    adding = IntervenableModel(IntervenableConfig(sites), model=model)

    def generate(batch, settings):
        return adding.generate(batch, intervene_on_prompt=True, **settings)[1]

    return {"add": lambda: generated(job, batches, generate)}


if __name__ == "__main__":
    serve("pyvene", prepare)
