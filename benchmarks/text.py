"""Held-out nats of a run on texts against n-grams with Kneser-Ney smoothing and a coder; JSON lines.

    python benchmarks/text.py --workdir runs/sms [--orders 3 4 5 6] [--proposals 100]

All are judged on the same tokens, the end of a text included. The run's number is a lower bound by importance sampling
from its encoder; `cost_of_other_latents` says whether its decoder uses them.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from ngrams import KneserNey, coder_nats

from kaem_jax.data import Text, load_dataset
from kaem_jax.evaluation.evaluators import HeldOutLikelihood, LatentUse
from kaem_jax.inference.evidence import make_estimator
from kaem_jax.inference.proposals import EncoderProposal
from kaem_jax.likelihoods import Categorical
from kaem_jax.runs.run import load_run
from kaem_jax.training.keys import evaluation_keys

_NUM_USED = 64


def main() -> None:
    """Prints one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--orders", nargs="*", type=int, default=[3, 4, 5, 6])
    parser.add_argument("--proposals", type=int, default=100)
    given = parser.parse_args()
    run = load_run(given.workdir)
    dataset = load_dataset(run.config.data)
    form, vocabulary = dataset.form, dataset.form.num_tokens if isinstance(dataset.form, Text) else 0
    assert isinstance(form, Text), "this is for runs on texts"

    def cut(values: np.ndarray) -> list[list[int]]:
        lengths = np.asarray(Categorical.is_read(jnp.asarray(values))).sum(axis=1)
        return [row[:length].tolist() for row, length in zip(values, lengths, strict=True)]

    train, test = cut(np.asarray(dataset.train)), cut(dataset.held_out)
    num_tokens = sum(map(len, test))
    for order in given.orders:
        model = KneserNey(train, order, vocabulary)
        print(json.dumps({"model": f"{order}-gram", "nats_per_token": sum(map(model.nats, test)) / num_tokens}))
    coded = coder_nats(form.decode(np.asarray(dataset.train)), form.decode(dataset.held_out))
    print(json.dumps({"model": "lzma", "nats_per_token": coded / num_tokens}))
    sampler = run.training_posterior.sampler
    reference = EncoderProposal(sampler.encoder)  # type: ignore[attr-defined]
    estimator = make_estimator(
        "importance", proposal=reference, num_samples=given.proposals, chunk_size=500, batch_size=100
    )
    keys, x = evaluation_keys(0), jnp.asarray(dataset.held_out)
    found = HeldOutLikelihood(keys.likelihood, x, estimator).run(run)["log_likelihood"]
    use = LatentUse(keys.latent_use, x[:_NUM_USED], estimator).run(run)["latent_use"]
    row = {
        "model": "kaem",
        "step": run.step,
        "context": getattr(run.config.decoder, "context", None),
        **found,
        "latent_use": use,
    }
    print(json.dumps(row | {"device": jax.devices()[0].device_kind}))


if __name__ == "__main__":
    main()
