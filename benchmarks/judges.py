"""How well different judges see log p(x) of one trained model, and what a ladder of temperatures could mend.

python benchmarks/judges.py --data_dir DIR [--experiments mnist svhn] [--num_data 32] [--longest 5000]

It trains `:tiny` with the variational posterior, 4,000 updates, and prints one JSON line for each judge (nats are
bounds where the effective sample size is small, and always from an encoder), the gap of bidirectional bounds on
simulated data, R-hat of log p(x, z) over starts with and without preconditioning, and the barrier and round trips of
ladders from the prior and the encoder.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
from measure import emit
from models import DATA, JUDGE, configure, train

from kaem_jax.data import load_dataset, to_unit_interval
from kaem_jax.evaluation.metrics.mixing import r_hat_over_starts
from kaem_jax.inference.evidence import bidirectional_bounds, make_estimator
from kaem_jax.inference.proposals import EncoderProposal, Reference
from kaem_jax.inference.proposals.path import path_from_prior, path_from_reference
from kaem_jax.inference.samplers import Langevin, ProposalChains
from kaem_jax.mcmc import principal_frame, tempered_posterior
from kaem_jax.model import Model, Params
from kaem_jax.runs.build import build_encoder

NUM_STEPS, NUM_RUNGS, NUM_ROUNDS = 4000, 12, 100


def judge(size: dict[str, Any], model: Model, params: Params, x: jax.Array, references: dict[str, Any], longest: int):
    """One line for each estimator."""
    cases: list[tuple[str, str, dict[str, int]]] = [
        *(("ais", "prior", {"num_temperatures": n, "num_chains": 8}) for n in (50, 500, 5000) if n <= longest),
        ("importance", "encoder", {"num_samples": 1000}),
        ("importance", "laplace", {"num_samples": 1000}),
        *(("ais", "laplace", {"num_temperatures": n, "num_chains": 8}) for n in (20, 50, 200)),
        *(("ais", "encoder", {"num_temperatures": n, "num_chains": 8}) for n in (20, 50, 200)),
    ]
    for method, name, options in cases:
        estimator = make_estimator(method, proposal=references[name], batch_size=len(x), **options)
        jax.block_until_ready(estimator(jax.random.key(1), model, params, x)[0])  # compiles
        started = time.perf_counter()
        evidence, effort = estimator(jax.random.key(7), model, params, x)
        result = {"nats": float(jnp.mean(evidence.value)), "ess": float(jnp.median(evidence.ess))}
        seconds = time.perf_counter() - started
        settings = {"method": method, "reference": name, **options, "gradients_per_datum": effort.num_gradients}
        emit("judges", size | settings, result | {"seconds": seconds})


def mixing(size: dict[str, Any], model: Model, params: Params, x: jax.Array, reference: Reference):
    """R-hat over starts, plain and in the frame of the average posterior."""
    draws, _ = ProposalChains(proposal=reference).draw(jax.random.key(2), 0, (), model, params, x)
    chains, table = Langevin(precondition=True), model.prior.tabulate(params["prior"])
    metric = chains.next_metric(
        jax.random.key(3), 0, chains.first_metric(model.prior), model, params, table, draws.z, x
    )
    assert metric is not None, "chains with a preconditioner have one"
    frame = principal_frame(metric)
    for name, coordinates in (("latents", None), ("frame", frame)):
        for num_steps in (200, 1000):
            found = r_hat_over_starts(
                jax.random.key(4), model, params, x, frame=coordinates, num_steps=num_steps, num_chains=4
            )
            result = {"r_hat": float(jnp.nanmedian(found)), "share_below_1.1": float(jnp.mean(found < 1.1))}
            emit("mixing", size | {"coordinates": name, "steps": num_steps}, result)


def ladders(size: dict[str, Any], model: Model, params: Params, x: jax.Array, reference: EncoderProposal):
    """Tuned ladders of 12 rungs from the prior and from the encoder."""
    table = model.prior.tabulate(params["prior"])
    fitted = reference.fit(jax.random.key(0), model, params, x)
    paths = {
        "prior": path_from_prior(model, params, x, table),
        "encoder": path_from_reference(model, params, x, fitted, table),
    }
    for name, path in paths.items():
        run = jax.jit(
            lambda key_start, key_run, path=path: tempered_posterior(
                key_run,
                path.log_start,
                path.log_gain,
                path.draw(key_start, NUM_RUNGS),
                num_rounds=NUM_ROUNDS,
                steps_per_round=2,
                num_temperatures=NUM_RUNGS,
                bounds=path.bounds,
                refresh=path.refresh,
            )
        )(*jax.random.split(jax.random.key(5)))
        barrier = float(run.info.barrier)
        result = {
            "barrier": barrier,
            "rungs_that_suit": max(2, round(2 * barrier)),
            "round_trips_per_datum": float(jnp.mean(run.info.round_trips)),
            "share_of_data_with_a_round_trip": float(jnp.mean(run.info.round_trips > 0)),
            "swap_acceptance_min": float(jnp.min(run.info.swap_acceptance)),
        }
        emit("ladders", size | {"start": name, "rungs": NUM_RUNGS, "rounds": NUM_ROUNDS}, result)


def main() -> None:
    """Prints the lines of each experiment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--experiments", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--num_data", type=int, default=32)
    parser.add_argument(
        "--longest", type=int, default=5000, help="temperatures of the longest annealing from the prior"
    )
    given = parser.parse_args()
    for name in given.experiments:
        config = configure(name, "mixture", given.data_dir, NUM_STEPS, {"likelihood.sigma": 0.3})
        dataset = load_dataset(config.data)
        model, state, _, _ = train(config, dataset, 0)
        params, x = state.params, to_unit_interval(jnp.asarray(dataset.held_out[: given.num_data]))
        encoder = build_encoder(config, model.prior, model.data_shape)
        assert encoder is not None
        learned = EncoderProposal(encoder)
        references = {"prior": None, "encoder": learned, "laplace": JUDGE}
        size = {"experiment": f"{name}:tiny", "num_data": len(x)}
        judge(size, model, params, x, references, given.longest)
        for num_temperatures in (64, 256):
            effort = {"num_chains": 8, "num_temperatures": num_temperatures}
            bounds = bidirectional_bounds(jax.random.key(6), model, params, len(x), **effort, proposal=JUDGE)
            gap = float(jnp.mean(bounds.upper - bounds.lower))
            emit("gap", size | {"reference": "laplace", "num_temperatures": num_temperatures}, {"gap": gap})
        mixing(size, model, params, x, JUDGE)
        ladders(size, model, params, x, learned)


if __name__ == "__main__":
    main()
