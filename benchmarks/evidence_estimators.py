"""How well estimators see log p(x) of one trained model; JSON lines.

    python benchmarks/evidence_estimators.py --data_dir DIR [--experiments mnist svhn] [--num_data 32] [--longest 5000]

A model with the mixture prior and the variational posterior makes 4,000 updates. Then comes a line for each estimator:
nats are bounds where the effective sample size is small, and always from an encoder. Annealing from the prior has
`--longest` temperatures at most.
"""

from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
from lib.measure import Training, emit, script, time_updates, timed
from lib.models import configure

import kaem_jax as kaem
from kaem_jax.app.data import load_dataset
from kaem_jax.inference.evidence import AIS, Estimator, ImportanceEstimator
from kaem_jax.training.batch import to_unit_interval

CASES: list[tuple[str, Estimator]] = [
    *(("prior", AIS(num_temperatures=n, num_chains=8)) for n in (50, 500, 5000)),
    *((name, ImportanceEstimator(num_samples=1000)) for name in ("encoder", "laplace")),
    *((name, AIS(num_temperatures=n, num_chains=8)) for name in ("laplace", "encoder") for n in (20, 50, 200)),
]


@script(__doc__, data_dir=str, experiments=["mnist", "svhn"], num_data=32, num_steps=4000, longest=5000)
def main(given: Namespace) -> None:
    """Prints the lines of each experiment."""
    for name in given.experiments:
        config = configure(name, "mixture", given.data_dir, [given.num_steps], "likelihood.sigma=0.3")
        dataset = load_dataset(config.data)
        training = Training(config, dataset)
        time_updates(training, given.num_steps)
        x = to_unit_interval(jnp.asarray(dataset.held_out[: given.num_data]))
        model, params = training.model, training.state.params
        encoder = kaem.EncoderProposal(config.posterior.encoder)  # type: ignore[attr-defined]
        size = {"experiment": f"{name}:tiny", "num_data": len(x)}
        proposals: dict[str, Any] = {"prior": None, "encoder": encoder, "laplace": config.proposal()}
        for proposal, estimator in CASES:
            if proposal == "prior" and estimator.num_temperatures > given.longest:  # type: ignore[attr-defined]
                continue
            estimator(jax.random.key(1), model, params, x, proposals[proposal])  # compiles
            (evidence, effort), seconds = timed(estimator, jax.random.key(7), model, params, x, proposals[proposal])
            result = {"nats": float(jnp.mean(evidence.value)), "ess": float(jnp.median(evidence.ess))}
            result |= {"seconds": seconds, "gradients_per_datum": effort.num_gradients}
            case = size | {"method": effort.method, "proposal": proposal, **effort.settings}
            emit("evidence_estimators", case, result)
