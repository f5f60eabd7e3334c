"""Experiments: those that ship, of any length, files that are none, parts and data that contradict each other."""

import contextlib
import json

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

import kaem_jax as kaem
from kaem_jax.app.cli import kaem as kaem_command
from kaem_jax.app.data import Table, load_dataset
from kaem_jax.app.data.config import TOYS, DataSettings
from kaem_jax.app.data.dataset import Dataset
from kaem_jax.app.experiment.bind import bind
from kaem_jax.app.experiment.experiment import Experiment, Train
from kaem_jax.app.experiment.experiment_file import read_experiment, shipped
from kaem_jax.errors import ConfigError
from kaem_jax.settings import read, to_dict
from kaem_jax.tables.column import Column
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


def test_a_baseline_has_the_networks_and_the_length_of_its_experiment():
    """A VAE has N(0, I) until its last update, after which ten full Gaussians may be fitted to its codes."""
    own = read_experiment("mnist:tiny")
    for name, is_fitted in (("vae", False), ("vae_and_gaussians", True)):
        one = read_experiment(f"baselines/{name}:mnist_tiny")
        assert (one.stages, one.num_steps, one.train.refit) == ((), own.num_steps, is_fitted)
        assert (one.decoder, one.likelihood, one.posterior) == (own.decoder, own.likelihood, own.posterior)
        assert one.optimizer.prior.learning_rate == 0
        z = np.random.default_rng(0).normal(size=(5, one.prior.num_latents)).astype(np.float32)
        found = one.prior.bind(one.prior.init(jax.random.key(0))).log_prob(z)
        np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(axis=1), rtol=1e-5)


def test_a_file_of_a_user_is_an_experiment_or_refused(tmp_path, refuses):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return {'name': 'mine', 'prior': {'num_latents': 3}}\n")
    found = read_experiment(str(path), ["--config.train.num_steps=500"])
    assert (found.name, found.prior.num_latents, found.train.num_steps) == ("mine", 3, 500)
    with refuses(ConfigError, "there is no variant"):
        read_experiment(f"{path}:tiny")
    with refuses(ConfigError, "'nowhere.py'", "digits", "svhn_tempered"):
        read_experiment("nowhere.py")
    for content, part in (
        ("def get_config():\n    return None\n", "get_config() returns None"),
        ("def get_config():\n    raise ValueError('bad\\nthing')\n", "ValueError: bad"),
        ("x = 1\n", "get_config"),
        ("\xff\xfe", "SyntaxError"),
    ):
        path.write_bytes(content.encode("latin1"))
        with refuses(ConfigError, str(path), part):
            read_experiment(str(path), ["--config.train.num_steps=7"])


def test_a_refusal_is_one_line(capsys):
    assert kaem_command.main(["train", "--config", "svhn:tiny", "--config.prior.kind=a\nb"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: prior.kind")


NEURAL = {"prior__kind": "neural"}
FIELD = {"data__name": "field", "data__path": "f.npz", "decoder__output": "identity"}
ENCODER = {"posterior__encoder__kind": "mlp"}
VARIATIONAL = ENCODER | {"posterior__kind": "variational", "evaluation__proposal__kind": "encoder"}
TEMPERED = {"posterior__kind": "tempered"}


COUNTED = ("every_steps", "num_data", "num_reconstructions", "posterior_steps", "posterior_chains")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        *(({f"evaluation__{name}": 0}, [f"evaluation.{name}=0"]) for name in COUNTED),
        *(({f"checkpoint__{name}": low - 1}, [f"checkpoint.{name}={low - 1}"])
          for name, low in (("every_steps", 1), ("keep_last", 1), ("keep_best", 0))),
        # What would be computed, and mean something else.
        (VARIATIONAL | {"evaluation__proposal__kind": "prior"}, ["evaluation.proposal", "'laplace' or 'encoder'"]),
        ({"evaluation__proposal__kind": "encoder"}, ["evaluation.proposal.kind='encoder'", "'laplace'"]),
        (NEURAL | {"evaluation__proposal__kind": "laplace"}, ["evaluation.estimator", "normalised"]),
        # Schedules that would not come to their end.
        (VARIATIONAL | {"posterior__kl_warmup_steps": 60}, ["posterior.kl_warmup_steps=60", "the 60 updates"]),
        ({"optimizer__prior__warmup_steps": 60}, ["optimizer.prior.warmup_steps=60", "num_steps=60"]),
        ({"evaluation__every_steps": 7}, ["evaluation.every_steps=7", "train.log_every=5"]),
        ({"checkpoint__every_steps": 15}, ["checkpoint.every_steps=15", "evaluation.every_steps=10"]),
        (TEMPERED | {"posterior__num_steps": 10, "posterior__steps_per_round": 5, "evaluation__posterior_steps": 7},
         ["evaluation.posterior_steps", "num_steps=7"]),
        # Data and parts that do not belong together.
        ({"data__name": "wine", "decoder__output": "identity"}, ["data.name='wine'", "likelihood=Gaussian", "columns"]),
        ({"decoder__kind": "sequence"}, ["decoder=SequenceDecoder", "data.name='digits'"]),
        (FIELD | {"decoder__output": "sigmoid"}, ["decoder.output='sigmoid'", "data.name='field'", "'identity'"]),
        ({"data__labels": True}, ["data.labels=True", "prior.num_classes=0"]),
        (VARIATIONAL | {"prior__kind": "clustered", "prior__num_classes": 2},
         ["data.labels=False", "prior.num_classes=2"]),
        ({"data__held_out": "validation"}, ["data.held_out='validation'", "data.validation_size=0"]),
        ({"data__path": "a.npz"}, ["data.path='a.npz'", "does nothing with name='digits'"]),
        # Values that fit on their own, and not together.
        ({"prior__base_density": "lognormal"}, ["prior.domain=(-3.0, 3.0)"]),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(changes, parts, refuses):
    with refuses(ConfigError, *parts) as caught:
        tiny_config(**changes)
    assert str(caught.value)[0].isalpha()


def test_parts_that_do_not_fit_the_shape_of_the_data_are_refused(refuses):
    for changes, group in (
        ({"decoder__kind": "conv"}, "decoder"),
        (VARIATIONAL | {"posterior__encoder__kind": "conv"}, "posterior.encoder"),
    ):
        with refuses(ConfigError, group, "(8, 8)"):
            tiny_config(**changes).model((8, 8))


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


NAMES = (
    "breast_cancer", "celeba", "cifar10:tiny", "darcy", "digits", "mnist", "sms", "svhn", "svhn:paper_tiny",
    "baselines/neural:tiny", "svhn_tempered", "toys:moons", "wine:tiny",
)  # fmt: skip


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.integers(20, 200_000))
@example("cifar10:tiny", 36)  # whose stages must not lose an update to rounding
def test_every_experiment_can_have_any_length(name, num_steps):
    before = read_experiment(name)
    after = read_experiment(name, [f"--config.train.num_steps={num_steps}"])
    assert after.train.num_steps == num_steps
    assert len(before.stages) == len(after.stages)
    for old, new in zip(before.stages, after.stages, strict=True):
        assert abs(new.num_steps - old.num_steps * num_steps / before.train.num_steps) <= 1
    before, after = (config.num_steps // config.evaluation.every_steps for config in (before, after))
    assert min(2, before) <= after <= max(6, 2 * before)


def test_intervals_and_warm_ups_keep_their_share():
    after = read_experiment("sms", ["--config.train.num_steps=320"])  # a fifth of its 1,600
    assert (after.train.log_every, after.evaluation.every_steps, after.checkpoint.every_steps) == (32, 64, 64)
    assert after.optimizer.prior.warmup_steps == after.optimizer.decoder.warmup_steps == 10
    assert after.posterior.kl_warmup_steps == 160


def test_what_is_given_stays():
    after = read_experiment("digits", ["--config.train.num_steps=1000", "--config.evaluation.every_steps=250"])
    assert (after.train.log_every, after.evaluation.every_steps, after.checkpoint.every_steps) == (10, 250, 250)
    with pytest.raises(ConfigError, match=r"train\.num_steps"):
        read_experiment("digits", ["--config.train.num_steps=-3"])


@given(*[st.integers(1, 300)] * 3, st.integers(0, 300))
def test_a_call_makes_the_most_updates_that_end_at_every_line_of_the_log(num_steps, log_every, most, step):
    """Also of a run that goes on from a step at which no call would have ended."""
    train = Train(num_steps=num_steps, log_every=log_every, steps_per_call=most)
    fitting = [num for num in range(1, most + 1) if num_steps % num == log_every % num == step % num == 0]
    assert train.updates_a_call(num_steps, step) == max(fitting)


LABELLED = {
    "posterior__kind": "variational", "posterior__encoder__hidden": (16,), "evaluation__proposal": "encoder",
    "prior__kind": "clustered", "prior__num_clusters": 6, "data__labels": True,
}  # fmt: skip
LOGISTIC = {"likelihood__kind": "discretized_logistic"}
IMAGES = (np.arange(40 * 64).reshape(40, 8, 8) % 17 / 16).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "shape", "parts"),
    [
        (LABELLED | {"prior__num_classes": 3}, (8, 8), ["data.labels=True", "has none"]),
        (LOGISTIC | {"likelihood__levels": 256}, (8, 8), ["likelihood.levels=256", "multiples of 1 / 255"]),
        ({"data__transpose": True}, (64,), ["data.transpose=True", "square", "(64,)"]),
        ({"data__transpose": True}, (8, 4, 2), ["data.transpose=True", "square", "(8, 4, 2)"]),
    ],
)
def test_settings_that_do_not_fit_the_data(refuses, changes, shape, parts):
    images = IMAGES.reshape(40, *shape)
    with refuses(ConfigError, *parts):
        bind(tiny_config(**changes), Dataset(images, images))
    if "data__transpose" in changes:
        square = IMAGES.reshape(40, 4, 4, 4)
        bind(tiny_config(**changes), Dataset(square, square))


def test_settings_of_other_data_are_refused(refuses):
    others = {
        "path": "x", "dir": "x", "image_size": 64, "fit": "pad", "channels": "grey", "test_fraction": 0.2,
        "split_seed": 1, "columns": ("a",), "label": "a", "transform": "power", "level": "word", "length": 9,
    }  # fmt: skip
    refuses.each(
        *((lambda given={name: value}: DataSettings(name="digits", **given), [f"{name}=", "does nothing with"])
          for name, value in others.items())
    )  # fmt: skip


def test_labels_are_those_of_training_and_the_classes_of_the_prior(refuses, capsys):
    labelled = tiny_config(**LABELLED, prior__num_classes=3)
    bind(labelled, Dataset(IMAGES, IMAGES, (np.arange(40) % 3).__getitem__, None))
    with refuses(ConfigError, "prior.num_classes=3", "at least 4"):
        bind(labelled, Dataset(IMAGES, IMAGES, (np.arange(40) % 4).__getitem__, None))
    from_one = Dataset(IMAGES, IMAGES, (1 + np.arange(40) % 2).__getitem__, None)
    with refuses(ConfigError, "prior.num_classes=3", "no training datum has the label 0", "'learned'"):
        bind(labelled, from_one)
    bind(tiny_config(**LABELLED, prior__num_classes=3, prior__proportions="learned"), from_one)
    assert "no training datum has the label 0" in capsys.readouterr().err


def test_columns_of_one_number_are_refused_and_others_have_their_sizes(refuses):
    """A density of one number has no bound, and one held-out row with another one would spoil the mean of all."""
    rows = np.stack([np.arange(40.0), np.zeros(40)], axis=1).astype(np.float32)
    rows[3, 1] = np.nan
    form = Table((Column("a"), Column("flag", mean=7.0)))
    columns = {"data__name": "wine", "likelihood__kind": "columns", "decoder__output": "identity"}
    with refuses(ConfigError, "'flag' has one value only in the training rows, 7"):
        bind(tiny_config(**columns), Dataset(rows, rows, form=form))
    good = Dataset(rows + np.arange(40)[:, None], rows, form=form)
    assert bind(tiny_config(**columns), good).likelihood.sizes == (1, 1)


def test_levels_are_known_in_float32(refuses):
    """k / 65535 in float32 times 65535 is off by 2e-3; a level between two is not."""
    images = (np.arange(64 * 64).reshape(64, 8, 8) * 15 / 65535).astype(np.float32)
    config = tiny_config(**LOGISTIC, likelihood__levels=65536)
    bind(config, Dataset(images, images))
    with refuses(ConfigError, "multiples of 1 / 65535"):
        bind(config, Dataset(images, images + np.float32(0.3 / 65535)))


def test_a_batch_may_be_larger_than_what_is_held_out(refuses):
    for num_train, num_held_out, is_refused in ((0, 100, False), (100, 0, True)):
        config = tiny_config(data__batch_size=200, data__num_train=num_train, data__num_held_out=num_held_out)
        with refuses(ConfigError, "at most 100") if is_refused else contextlib.nullcontext():
            bind(config, load_dataset(config.data))
