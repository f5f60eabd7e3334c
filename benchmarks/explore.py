"""How long `kaem explore` takes from a moved handle to the picture: a request over HTTP on this machine, and its parts.

    python benchmarks/explore.py

Models are at their initial parameters, whose values change no time. `request` is what a page waits for: JSON out, one
decoded image with p(c | z) back, through the real server. `session` is the same without the server.
"""

import http.client
import json
import threading
import time

import jax
import numpy as np
from measure import emit

from kaem_jax.contrib.explorer import Session, open_session, server
from kaem_jax.inference.samplers import FrozenSampler
from kaem_jax.runs.experiment import Experiment
from kaem_jax.runs.experiment_file import read_experiment
from kaem_jax.runs.run import Run

SIZES = [("digits", (8, 8)), ("svhn:tiny", (32, 32, 3)), ("celeba:tiny", (32, 32, 3))]
REPEATS = 300
LIMIT_MS = 100


def session_of(config: Experiment, shape: tuple[int, ...]) -> Session:
    """A session of an untrained model."""
    model = config.model(shape)
    posterior = FrozenSampler(config.evaluation_sampler(), (), 0)
    return open_session(Run(config, model, model.init(jax.random.key(0)), 0, posterior, posterior), "none", None)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, 95 % and maximum in milliseconds."""
    median, high, most = 1e3 * np.quantile(seconds, [0.5, 0.95, 1.0])
    return {"median_ms": median, "p95_ms": high, "max_ms": most}


def main() -> None:
    """Runs all sizes."""
    for name, shape in SIZES:
        started = time.perf_counter()
        session = session_of(read_experiment(name), shape)
        server.warm_up(session)
        num_latents = len(session.shares)
        size = {"model": name, "latents": num_latents, "shape": list(shape)}
        emit("explore_start", size, {"seconds": time.perf_counter() - started})

        drawn = session.draw(0, np.zeros(num_latents), np.zeros(num_latents, bool), num=REPEATS)
        latents = [picture["latent"] for picture in drawn]
        alone, requests = [], []
        for latent in latents:
            before = time.perf_counter()
            session.decode([latent])
            alone.append(time.perf_counter() - before)
        emit("explore_session", size, summary(alone))

        at = server.listen(0)
        threading.Thread(target=server.serve, args=(session, at), daemon=True).start()
        connection = http.client.HTTPConnection(*at.getsockname())
        for latent in [*latents[:5], *latents]:  # a few to warm up
            before = time.perf_counter()
            connection.request("POST", "/api/decode", json.dumps({"latents": [latent]}))
            answer = connection.getresponse()
            answer.read()
            requests.append(time.perf_counter() - before)
            assert answer.status == 200
        result = summary(requests[5:])
        emit("explore_request", size | {"within_limit": bool(result["p95_ms"] < LIMIT_MS)}, result)


if __name__ == "__main__":
    main()
