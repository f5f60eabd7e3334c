"""Runs of several stages: each its own posterior, rates and length; parameters, chains and fits pass from one on."""

import dataclasses
import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kaem_jax as kaem
from kaem_jax.app.evaluation import periodic
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.app.loop import Outcome, train_and_evaluate
from kaem_jax.app.runs.checkpoints import Checkpoints
from kaem_jax.app.runs.run_folder import RunFolder
from kaem_jax.app.runs.training_run import TrainingRun
from kaem_jax.errors import ConfigError
from kaem_jax.inference.samplers.chains import as_rows
from kaem_jax.jax_utils.keys import refit_key, run_keys, stage_key
from kaem_jax.priors import fit_prior
from kaem_jax.settings import apply_overrides, flatten, read, to_dict
from kaem_jax.training.optimizer import Group, Optimizer
from kaem_jax.training.refit import refit_state
from kaem_jax.training.stage import Stage, stage_after, state_after
from kaem_jax.training.state import init_train_state, state_of_next_stage
from kaem_jax.training.step import Batch
from tests.app.conftest import rows_of
from tests.app.staged import ENCODER, NUM_DATA, staged_dict
from tests.app.tiny import arguments_of
from tests.inference.stubs import MODEL
from tests.linear_gaussian import Fixed


def staged(**overrides):
    overrides |= {"parallel__data": 1, "parallel__temp": 1}
    return read(Experiment, apply_overrides(Experiment, staged_dict(), arguments_of(overrides)))


def state_at(workdir, step):
    folder = RunFolder(workdir)
    config, saved = folder.saved_config(), folder.read_config()
    model = config.model(tuple(saved["data_shape"]))
    make = functools.partial(state_after, config.all_stages, step, model=model, num_data=saved["num_train"])
    with Checkpoints(folder.checkpoints, None) as checkpoints:
        return checkpoints.restore(step, jax.eval_shape(make, run_keys(config.seed).state))


def assert_equal(a, b):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module", autouse=True)
def _estimates_alone():
    """Figures and reconstructions, which take most of the time, are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_samples", "draw_held_out"):
            patch.setattr(periodic, name, lambda *_: None)
        patch.setattr(periodic.reconstruction, "evaluate", lambda *_: ({}, None))
        yield


def clustered():
    """Evaluated by draws of its encoder, which compile fastest; its prior is fitted to the kept chains."""
    prior = {"kind": "clustered", "num_latents": 2, "num_clusters": 2, "shape": "gaussian"}
    values = staged_dict() | {"prior": prior, "parallel": {"data": 1, "temp": 1}}
    values["stages"][0]["refit"] = True
    values["evaluation"]["proposal"] = {"kind": "encoder", "encoder": ENCODER}
    values["evaluation"]["estimator"]["batch_size"] = 10  # the final evaluation shares the programs of those before it
    return read(Experiment, values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("staged") / "run"
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(clustered(), workdir) is Outcome.FINISHED
    return workdir


def test_each_stage_has_its_own_posterior_rates_and_fit(finished):
    rows = [row for row in rows_of(finished) if "train/loss" in row]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert ["train/kl" in row for row in rows] == [True, True, False, False]
    assert ["perf/compile_seconds" in row for row in rows] == [True, False, True, False]
    evaluated = [row["step"] for row in rows_of(finished) if "eval/log_likelihood" in row]
    assert evaluated == [20, 40, 40]
    assert [row["eval/num_data"] for row in rows_of(finished) if "eval/num_data" in row] == [10, 10, 20]
    first, last = (kaem.load_run(finished, step) for step in (20, 40))
    assert type(first.training_posterior.sampler) is kaem.Variational
    assert type(last.training_posterior.sampler) is kaem.Particles
    assert (first.training_posterior.step, last.training_posterior.step) == (20, 20)
    before, after = state_at(finished, 20), state_at(finished, 40)
    assert before.average is None
    assert last.params["decoder"].keys() == after.average["decoder"].keys()
    jax.tree.map(np.testing.assert_array_equal, last.params, after.average)
    jax.tree.map(np.testing.assert_array_equal, before.params["encoder"], after.params["encoder"])  # it rests
    sizes = [{leaf.size for leaf in jax.tree.leaves(state.opt_state)} for state in (before, after)]
    assert [64 * 8 in found for found in sizes] == [True, False]  # of Adam's moments of the encoder's first layer
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before.params, after.params)
    assert all(size > 0 for size in jax.tree.leaves(moved["decoder"]))
    # What is saved is what was fitted.
    config = clustered()
    again = refit_state(after, config.model((8, 8)), config.stages[0].posterior, None, None, 40)
    jax.tree.map(np.testing.assert_array_equal, again.params["prior"], after.params["prior"])
    # Moments are those of twenty updates, not of forty.
    counts = [int(leaf) for leaf in jax.tree.leaves(after.opt_state) if leaf.dtype == np.int32]
    assert set(counts) == {20}
    assert int(after.sampler.num_batches) == 20


@pytest.mark.slow
def test_the_prior_is_fitted_at_the_end_of_each_stage(tmp_path, capfd):
    """To posterior draws, and then to the kept chains, if the held-out part is likelier under the fit."""
    clustered = {"kind": "clustered", "num_latents": 2, "num_clusters": 2, "map": "full", "grid_size": 4}
    values = staged_dict() | {"prior": clustered, "parallel": {"data": 1, "temp": 1}}
    values["train"]["refit"] = values["stages"][0]["refit"] = True
    config = read(Experiment, values)
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(config, tmp_path / "run") is Outcome.FINISHED
    assert capfd.readouterr().err.count("fitting the prior to posterior draws") == 2
    first, last = (state_at(tmp_path / "run", step) for step in (20, 40))
    model = config.model((8, 8))
    assert np.abs(first.params["prior"]["rotation"] - np.eye(2)).max() > 0.01  # gradients do not train it
    chains = np.asarray(config.stages[0].posterior.kept(last.sampler, model))
    assert chains.shape == (2, NUM_DATA, 2)
    assert np.isfinite(chains).all()  # twenty batches of 16 have seen all
    assert np.abs(chains[0] - chains[1]).max() > 0.1
    refitted = refit_state(last, model, config.stages[0].posterior, None, None, 40)
    _, fitted = fit_prior(refit_key(last.root_key, 40), chains, model.prior)
    is_fit = [np.allclose(state.params["prior"]["location"], fitted["location"]) for state in (last, refitted)]
    assert is_fit in ([True, True], [False, False])
    if is_fit[0]:
        jax.tree.map(np.testing.assert_array_equal, last.params["prior"], last.average["prior"])


def test_chains_of_a_stage_are_new_and_have_a_key_of_their_own():
    """Without an encoder they start at draws of the prior, which differ from stage to stage."""
    langevin = kaem.Langevin(persistent=True, num_steps=1)
    given = {"posterior": langevin, "optimizer": Optimizer(prior=Group(warmup_steps=0), decoder=Group(warmup_steps=0))}
    stages = [Stage(num_steps=length, **given) for length in (3, 20, 20)]
    key = run_keys(0).state
    states = [state_after(stages, step, key, MODEL, NUM_DATA) for step in (3, 4, 24)]
    found = [stage_after(stages, step) for step in (0, 3, 4, 23, 24, 99)]
    assert found == [(0, 0), (0, 0), (1, 3), (1, 3), (2, 23), (2, 23)]
    z = [np.asarray(langevin.kept(state.sampler, MODEL)) for state in states]
    assert np.abs(z[0] - z[1]).max() > 0.1
    moved = dataclasses.replace(states[1], step=states[1].step + 7)
    later = state_of_next_stage(moved, MODEL, None, langevin, NUM_DATA, False)
    assert np.abs(np.asarray(langevin.kept(later.sampler, MODEL)) - z[1]).max() > 0.1
    assert later.average is None
    kept = dataclasses.replace(moved, average=jax.tree.map(lambda leaf: np.asarray(leaf) + 1, moved.params))
    later = state_of_next_stage(kept, MODEL, None, langevin, NUM_DATA, True)
    jax.tree.map(np.testing.assert_array_equal, later.average, kept.average)
    assert len({tuple(jax.random.key_data(stage_key(states[0].root_key, step)).tolist()) for step in range(4)}) == 4


@pytest.mark.usefixtures("as_users_run_it")
def test_schedules_of_a_sampler_count_from_the_start_of_its_stage():
    langevin = kaem.Langevin(persistent=True, num_steps=1, adapt_steps=2)
    optimizer = Optimizer(prior=Group(warmup_steps=0), decoder=Group(warmup_steps=0))
    stages = [Stage(num_steps=9, optimizer=optimizer), Stage(num_steps=4, optimizer=optimizer, posterior=langevin)]
    state = dataclasses.replace(state_after(stages, 10, run_keys(0).state, MODEL, 4), step=jnp.int32(9))
    step = stages[1].train_step(MODEL, stages[1].make_optimizer(), first_step=9)
    batch, sizes = Batch(jnp.ones((4, 2)), jnp.arange(4)[None], jnp.arange(4)[None]), [langevin.step_size]
    for _ in range(4):
        state, _ = step(state, batch)
        sizes.append(float(state.sampler.step_size))
    assert (np.diff(sizes) != 0).tolist() == [True, True, False, False]


def test_given_parameters_are_those_of_the_start():
    sampler = kaem.Variational(encoder=kaem.MLP((3,)))
    fresh = init_train_state(jax.random.key(0), MODEL, None, sampler, 4).params
    given = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, fresh)
    found = init_train_state(jax.random.key(0), MODEL, None, sampler, 4, given).params
    jax.tree.map(np.testing.assert_array_equal, found, given)


@pytest.mark.usefixtures("as_users_run_it")
def test_averages_and_transposes_reach_the_step():
    model = kaem.Model(
        MODEL.prior, Fixed(lambda z: jnp.tile(z, 2).reshape(-1, 2, 2, 1), (2, 2, 1)), kaem.Gaussian(0.7), (2, 2, 1)
    )
    programs = set()
    for decay, transpose in ((0.0, False), (0.5, False), (0.7, False), (0.5, True)):
        stage = Stage(num_steps=60, optimizer=Optimizer(average_decay=decay))
        optimizer, state = stage.make_optimizer(), state_after([stage], 0, run_keys(0).state, model, 4)
        batch = Batch(jnp.zeros((4, 2, 2, 1)), jnp.arange(4)[None], jnp.arange(4)[None])
        programs.add(str(stage.train_step(model, optimizer, transpose).trace(state, batch).jaxpr))
    assert len(programs) == 4


def test_kept_chains_take_the_labels_of_the_data_that_were_seen(rng):
    """And the average of the parameters gets the fitted prior, too."""
    prior = kaem.ClusteredPrior(num_latents=1, num_clusters=2, num_classes=2, shape="gaussian")
    model, label = kaem.Model(prior, Fixed(lambda z: z), kaem.Gaussian(0.7), (1,)), np.arange(90) // 3 % 2
    langevin = kaem.Langevin(persistent=True, num_chains=2)
    state = init_train_state(jax.random.key(0), model, None, langevin, 90, averaged=True)
    z = np.where(np.arange(90) % 3 < 2, 4.0 * label - 2, np.nan)[:, None] + 0.1 * rng.normal(size=(2, 90, 1))
    chains = as_rows(jnp.asarray(z, jnp.float32), 1)
    state = dataclasses.replace(state, sampler=state.sampler._replace(chains=chains))
    after = refit_state(state, model, langevin, None, label, 40)
    np.testing.assert_allclose(np.ravel(after.params["prior"]["location"]), [-2, 2], atol=0.1)
    jax.tree.map(np.testing.assert_array_equal, after.average["prior"], after.params["prior"])


@pytest.mark.slow
@pytest.mark.parametrize(("at", "says_so_once"), [(10, False), (20, False), (30, False), (10, True), (20, True)])
def test_a_run_that_stops_in_a_stage_or_between_two_ends_bit_for_bit(finished, tmp_path, monkeypatch, at, says_so_once):
    """With several processes, the request to stop is seen once."""

    def stop(row):
        if row["step"] == at and "train/loss" in row and not says_so_once:
            signal.raise_signal(signal.SIGTERM)

    workdir, asked, config = tmp_path / "run", [], clustered()
    with jax.numpy_dtype_promotion("standard"), monkeypatch.context() as patch:
        if says_so_once:
            patch.setattr(
                TrainingRun, "stop_requested", lambda own: own.step >= at and (asked.append(1) or len(asked) == 1)
            )
        assert train_and_evaluate(config, workdir, watch=stop) is Outcome.INTERRUPTED
    with jax.numpy_dtype_promotion("standard"):
        assert train_and_evaluate(config, workdir) is Outcome.FINISHED
    for step in (20, 40):
        jax.tree.map(assert_equal, state_at(workdir, step), state_at(finished, step))
    ours, theirs = (
        [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in rows_of(folder)]
        for folder in (workdir, finished)
    )
    assert ours == theirs


def test_settings_of_a_stage_are_read_written_and_overridden_by_number(tmp_path):
    config = staged(stages__0__posterior__step_size=0.125, stages__0__num_steps=30)
    assert (config.stages[0].posterior.step_size, config.stages[0].posterior.num_chains) == (0.125, 2)
    assert (config.num_steps, [stage.num_steps for stage in config.all_stages]) == (50, [20, 30])
    assert read(Experiment, json.loads(json.dumps(to_dict(config)))) == config
    assert flatten(to_dict(config))["stages.0.posterior.step_size"] == 0.125
    values = staged_dict() | {"stages": tuple(staged_dict()["stages"])}
    path = tmp_path / "own.py"
    path.write_text(f"from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({values!r})\n")
    config = read_experiment(str(path), ["--config.train.num_steps=40"])
    assert [stage.num_steps for stage in config.all_stages] == [40, 40]  # all stages keep their shares
    assert config.stages[0].optimizer.decoder.warmup_steps == 4
    config = read_experiment(str(path), ["--config.train.num_steps=40", "--config.stages.0.num_steps=7"])
    assert config.stages[0].num_steps == 7


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"stages__1__num_steps": 3}, ("stages.1", "1 entries")),
        ({"stages__0__num_step": 3}, ("stages.0.num_step", "did you mean 'num_steps'")),
        ({"stages__0__num_steps": 0}, ("stages.0.num_steps=0",)),
        ({"stages__0__posterior__step_size": 3}, ("stages.0.posterior.step_size=3", "at most 1")),
        ({"stages__0__posterior__encoder__hidden": (9,)}, ("stages.0.posterior.encoder", "one encoder")),
        ({"stages__0__optimizer__prior__warmup_steps": 30}, ("stages.0.optimizer.prior.warmup_steps=30", "20")),
        ({"stages__0__refit": True}, ("stages.0.refit=True", "clustered")),
        ({"evaluation__proposal__encoder__hidden": (9,)}, ("evaluation.proposal.encoder", "one encoder")),
        ({"train__refit": True}, ("train.refit=True", "clustered")),
        ({"data__transpose": True}, ("stages.0.posterior", "data.transpose")),
        ({"stages__0": 5}, ("stages.0",)),
    ],
)
def test_contradictions_name_the_stage(overrides, parts, refuses):
    with refuses(ConfigError, *parts):
        staged(**overrides)
