"""Experiments: those that ship, files that are none, and parts that contradict each other."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

import kaem_jax as kaem
from kaem_jax.app.cli import kaem as kaem_command
from kaem_jax.app.data.config import TOYS
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.experiment.experiment_file import read_experiment, shipped
from kaem_jax.errors import ConfigError
from kaem_jax.settings import read, to_dict
from tests.app.tiny import tiny_config

PATHS = shipped()
KAEMS = ("celeba", "cifar10", "fashion_mnist", "mnist", "svhn")  # of images


def variants(name):
    if name == "digits":
        return [""]
    if name.startswith("baselines/vae"):
        return [f"{of}{size}" for of in KAEMS for size in ("", "_tiny")]
    of_papers = ["paper", "paper_tiny"] if name in (*KAEMS, "svhn_tempered") else []
    return ["", "tiny", *of_papers, *(TOYS if name == "toys" else ())]


@pytest.mark.parametrize("name", PATHS)
def test_every_shipped_experiment_survives_a_round_trip_through_json(name, refuses):
    """A tiny one is shorter, and of the same data."""
    found = {variant: read_experiment(f"{name}:{variant}" if variant else name) for variant in variants(name)}
    for variant, config in found.items():
        assert config.name == f"{name}_{variant}".removeprefix("baselines/").rstrip("_")
        assert read(Experiment, json.loads(json.dumps(to_dict(config)))) == config
    assert f"experiments/{name}.py" in PATHS[name].read_text()
    if "tiny" in found:
        assert found["tiny"].data.name == found[""].data.name
        assert found["tiny"].num_steps < found[""].num_steps
        with refuses(ConfigError, "variant 'small'", name.removeprefix("baselines/"), "tiny"):
            read_experiment(f"{name}:small")


@pytest.mark.parametrize("name", [*KAEMS, "svhn_tempered"])
def test_an_experiment_on_images_is_a_kaem(name):
    """Learned densities in each cluster's own axes that train in every stage, and kept chains in the last one."""
    for variant in ("", ":tiny"):
        config = read_experiment(f"{name}{variant}")
        first, last = config.all_stages
        assert isinstance(config.prior, kaem.ClusteredPrior)
        assert (config.prior.shape, config.prior.map, config.prior.num_classes) == ("learned", "full", 0)
        assert first.optimizer.prior.learning_rate > 0 < last.optimizer.prior.learning_rate
        assert (first.refit, type(first.posterior)) == (True, kaem.Variational)
        assert last.posterior.persistent
        assert last.posterior.encoder == first.posterior.encoder
        kinds = {"svhn_tempered": (kaem.Tempered, 3 if variant else 6)}
        assert (type(last.posterior), last.posterior.num_rungs) == kinds.get(name, (kaem.Particles, 1))
        if name == "svhn_tempered":
            plain = read_experiment(f"svhn{variant}")
            assert (config.prior, config.optimizer, config.train) == (plain.prior, plain.optimizer, plain.train)


def test_a_baseline_has_the_networks_and_the_length_of_its_experiment():
    """A VAE has N(0, I) until its last update, after which ten full Gaussians may be fitted to its codes."""
    for of, variant in (("mnist", "mnist_tiny"), ("svhn", "svhn")):
        own = read_experiment(f"{of}:tiny" if variant.endswith("_tiny") else of)
        vae, fitted = (read_experiment(f"baselines/{name}:{variant}") for name in ("vae", "vae_and_gaussians"))
        for one in (vae, fitted):
            assert one.stages == ()
            assert one.num_steps == own.num_steps
            assert (one.decoder, one.likelihood, one.posterior) == (own.decoder, own.likelihood, own.posterior)
            assert one.optimizer.prior.learning_rate == 0
            z = np.random.default_rng(0).normal(size=(5, one.prior.num_latents)).astype(np.float32)
            found = one.prior.bind(one.prior.init(jax.random.key(0))).log_prob(z)
            np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(axis=1), rtol=1e-5)
        assert (vae.train.refit, fitted.train.refit, fitted.prior.num_clusters) == (False, True, 10)
        assert isinstance(read_experiment("baselines/neural:tiny").prior, kaem.NeuralPrior)


def test_papers_settings_are_the_papers():
    """In full (arXiv 2506.14167); a laptop's variant has the same parts."""
    for name, kind in (("svhn", kaem.Langevin), ("svhn_tempered", kaem.Tempered)):
        config = read_experiment(f"{name}:paper")
        posterior, optimizer = config.posterior, config.optimizer
        assert config.prior == kaem.MixturePrior(num_latents=81, num_components=40)
        assert (config.likelihood, config.data.batch_size) == (kaem.Gaussian(0.3), 50)
        assert type(posterior) is type(read_experiment(f"{name}:paper_tiny").posterior) is kind
        assert (posterior.kernel, posterior.num_steps, posterior.step_size) == (kaem.mcmc.ULA(), 40, 0.01)
        assert posterior.encoder is None
        rates = [(group.learning_rate, group.schedule) for group in (optimizer.decoder, optimizer.prior)]
        assert rates == [(1e-4, "constant"), (2e-5, "constant")]
    assert (posterior.num_temperatures, posterior.ladder) == (20, "adaptive")


FILES = {
    "none": ("def get_config():\n    return None\n", "get_config() returns None"),
    "raises": ("def get_config():\n    raise ValueError('bad\\nthing')\n", "ValueError: bad"),
    "imports": ("import nosuch\n", "No module named 'nosuch'"),
    "syntax": ("def get_config(:\n", "SyntaxError"),
    "without": ("x = 1\n", "get_config"),
    "bytes": ("\xff\xfe", "SyntaxError"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_experiments_are_refused(tmp_path, name, refuses):
    content, part = FILES[name]
    path = tmp_path / f"{name}.py"
    path.write_bytes(content.encode("latin1"))
    with refuses(ConfigError, str(path), part):
        read_experiment(str(path), ["--config.train.num_steps=7"])


def test_a_file_of_a_user_is_an_experiment(tmp_path, refuses):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return {'name': 'mine', 'prior': {'num_latents': 3}}\n")
    found = read_experiment(str(path), ["--config.train.num_steps=500"])
    assert (found.name, found.prior.num_latents, found.train.num_steps) == ("mine", 3, 500)
    with refuses(ConfigError, "takes 0 positional arguments"):
        read_experiment(f"{path}:tiny")
    with refuses(ConfigError, "'nowhere.py'", "digits", "svhn_tempered"):
        read_experiment("nowhere.py")


def test_a_refusal_is_one_line(capsys):
    assert kaem_command.main(["train", "--config", "svhn:tiny", "--config.prior.kind=a\nb"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: prior.kind")


NEURAL = {"prior__kind": "neural"}
FIELD = {"data__name": "field", "data__path": "f.npz", "decoder__output": "identity"}
ENCODER = {"posterior__encoder__kind": "mlp"}
VARIATIONAL = ENCODER | {"posterior__kind": "variational", "evaluation__proposal__kind": "encoder"}
TEMPERED = {"posterior__kind": "tempered"}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        # What would be computed, and mean something else.
        (VARIATIONAL | {"evaluation__proposal__kind": "prior"}, ["evaluation.proposal", "'laplace' or 'encoder'"]),
        ({"evaluation__proposal__kind": "encoder"}, ["evaluation.proposal.kind='encoder'", "'laplace'"]),
        (NEURAL | {"evaluation__proposal__kind": "laplace"}, ["evaluation.estimator", "normalised"]),
        (NEURAL | TEMPERED, ["posterior.refresh=True", "exact prior draws"]),
        # Schedules that would not come to their end.
        (VARIATIONAL | {"posterior__kl_warmup_steps": 60}, ["posterior.kl_warmup_steps=60", "train.num_steps=60"]),
        ({"optimizer__prior__warmup_steps": 60}, ["optimizer.prior.warmup_steps=60", "num_steps=60"]),
        ({"evaluation__every_steps": 7}, ["evaluation.every_steps=7", "train.log_every=5"]),
        ({"checkpoint__every_steps": 15}, ["checkpoint.every_steps=15", "evaluation.every_steps=10"]),
        (TEMPERED | {"posterior__num_steps": 10, "posterior__steps_per_round": 5, "evaluation__posterior_steps": 7},
         ["evaluation.posterior_steps", "num_steps=7"]),
        # Data and parts that do not belong together.
        ({"data__name": "wine", "decoder__output": "identity"}, ["data.name='wine'", "likelihood=Gaussian", "columns"]),
        ({"likelihood__kind": "columns", "decoder__output": "identity"}, ["likelihood=Columns", "data.name='digits'"]),
        ({"data__name": "text", "data__path": "t.txt"}, ["data.name='text'", "likelihood=Gaussian"]),
        ({"decoder__kind": "sequence"}, ["decoder=SequenceDecoder", "data.name='digits'"]),
        (FIELD | {"decoder__output": "sigmoid"}, ["decoder.output='sigmoid'", "data.name='field'", "'identity'"]),
        ({"data__labels": True}, ["data.labels=True", "prior.num_classes=0"]),
        (VARIATIONAL | {"prior__kind": "clustered", "prior__num_classes": 2},
         ["data.labels=False", "prior.num_classes=2"]),
        ({"data__held_out": "validation"}, ["data.held_out='validation'", "data.validation_size=0"]),
        ({"data__name": "npz"}, ["data.path=''", "data.name='npz'"]),
        ({"data__path": "a.npz"}, ["data.path='a.npz'", "does nothing with name='digits'"]),
        # Values that fit on their own, and not together.
        ({"prior__domain": (1.0, 0.0)}, ["prior.domain=(1.0, 0.0)"]),
        ({"prior__base_density": "lognormal"}, ["prior.domain=(-3.0, 3.0)"]),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(changes, parts, refuses):
    with refuses(ConfigError, *parts) as caught:
        tiny_config(**changes)
    assert str(caught.value)[0].isalpha()


@pytest.mark.parametrize(
    ("changes", "shape", "parts"),
    [
        ({"likelihood__kind": "bernoulli"}, (8, 8), ["decoder", "output='sigmoid'", "logits"]),
        ({"likelihood__num_channels": 3}, (8, 8), ["num_channels=3", "(8, 8)"]),
        ({"decoder__kind": "conv"}, (8, 8), ["decoder", "(8, 8)"]),
        (VARIATIONAL | {"posterior__encoder__kind": "conv"}, (8, 8), ["posterior.encoder", "(8, 8)"]),
    ],
)
def test_parts_that_do_not_fit_the_shape_of_the_data_are_refused(changes, shape, parts, refuses):
    config = tiny_config(**changes)
    with refuses(ConfigError, *parts):
        config.model(shape)


def test_the_effort_of_an_evaluation_is_its_estimators():
    """Of two efforts, that of the end is asked for there; a datum of a user is never scored from the prior."""
    for kind, effort in (("importance", "num_samples"), ("ais", "num_temperatures"), ("auto", "budget")):
        given = {f"evaluation__estimator__{name}": n for name, n in ((effort, 12), (f"final_{effort}", 99))}
        estimator = tiny_config(evaluation__estimator__kind=kind, **given).evaluation.estimator
        assert (getattr(estimator, effort), getattr(estimator.final, effort)) == (12, 99)
    assert tiny_config().inference_proposal(may_miss=False) == kaem.Laplace()
    proposal = tiny_config(**VARIATIONAL).inference_proposal(may_miss=False)
    assert proposal == kaem.EncoderProposal(kaem.MLP())
    assert tiny_config(**VARIATIONAL).inference_proposal(may_miss=True) == kaem.Laplace()
