"""steering-vectors: mean differences and uncentred PCA of pair differences at the last token;
additions by hooks."""

from __future__ import annotations

from functools import partial

from steering_vectors import SteeringVector, mean_aggregator, pca_aggregator, train_steering_vector

from benchmarks.peers.driver import generated, serve, tokenised


def prepare(job, model, tokenizer, tensors):
    if job.kind == "extract":
        pairs = list(zip(job.positive, job.negative, strict=True))
        methods = {"mean_difference": mean_aggregator(), "pca_pairwise": pca_aggregator()}
        return {
            name: partial(fit, model, tokenizer, pairs, job.batch_size, way)
            for name, way in methods.items()
        }
    batches = tokenised(job, tokenizer)
    vector = SteeringVector({int(layer): added for layer, added in tensors.items()})

    def add():
        with vector.apply(model):
            return generated(
                job, batches, lambda batch, settings: model.generate(**batch, **settings)
            )

    return {"add": add}


def fit(model, tokenizer, pairs, batch_size, aggregator):
    trained = train_steering_vector(
        model, tokenizer, pairs, batch_size=batch_size, aggregator=aggregator
    )
    return {str(layer): vector for layer, vector in trained.layer_activations.items()}


if __name__ == "__main__":
    serve("steering-vectors", prepare)
