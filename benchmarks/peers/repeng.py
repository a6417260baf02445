"""repeng: centred PCA of pair differences at the last token, at all blocks but the first; additions
by wrapped blocks."""

from __future__ import annotations

import torch
from repeng import ControlModel, ControlVector, DatasetEntry

from benchmarks.peers.driver import generated, serve, tokenised


def prepare(job, model, tokenizer, tensors):
    if job.kind == "extract":
        entries = [DatasetEntry(*pair) for pair in zip(job.positive, job.negative, strict=True)]

        def pca_diff():
            directions = ControlVector.train(
                model, tokenizer, entries, batch_size=job.batch_size, method="pca_diff"
            ).directions
            return {str(layer): torch.from_numpy(vector) for layer, vector in directions.items()}

        return {"pca_diff": pca_diff}
    batches = tokenised(job, tokenizer)
    layers = sorted(map(int, tensors))
    controlled = ControlModel(model, layers)
    controlled.set_control(
        ControlVector(
            model.config.model_type, {layer: tensors[str(layer)].numpy() for layer in layers}
        )
    )
    return {
        "add": lambda: generated(
            job, batches, lambda batch, settings: controlled.generate(**batch, **settings)
        )
    }


if __name__ == "__main__":
    serve("repeng", prepare)
