"""`--where` of three commands on a model of one latent, whose probabilities are integrals over a line."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from scipy import integrate, special, stats

import kaem_jax as kaem
from kaem_jax.app.cli import impute, sample, score
from kaem_jax.app.cli import inference_options as apply_module
from kaem_jax.app.data.forms import Table
from kaem_jax.app.experiment.experiment import Experiment
from kaem_jax.app.runs.load import Run
from kaem_jax.tables.column import Column
from tests.app.conftest import call
from tests.linear_gaussian import Linear
from tests.truth import assert_within

FORM = Table((Column("age", mean=50.0, scale=10.0), Column("sex", ("F", "M")), Column("dose", scale=2.0)))
WEIGHT, BIAS, SIGMA = np.array([0.8, 0.9, -0.9, -0.6]), np.array([0.1, 0.2, 0.0, -0.3]), 0.4
PRIOR = kaem.ClusteredPrior(num_latents=1, num_clusters=1, shape="gaussian", spread=0.0)


@pytest.fixture
def run(monkeypatch):
    """Age rises and dose falls with z, and sex is F more often."""
    likelihood = kaem.Columns(sizes=FORM.sizes, sigma=SIGMA, learn_sigma=False)
    model = kaem.Model(PRIOR, Linear((4,)), likelihood)
    decoder = {"weight": jnp.asarray(WEIGHT[None], jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}
    params = {"prior": PRIOR.init(jax.random.key(0)), "decoder": decoder, "likelihood": {}}
    made = Run(Experiment(), model, params, 0, None, None, form=FORM)
    for module in (apply_module, sample):
        monkeypatch.setattr(module, "load_run", lambda *_: made)
    return made


def integral(function):
    return integrate.quad(lambda z: function(z) * stats.norm.pdf(z), -8, 8, epsabs=1e-12)[0]


def age(z):
    return stats.norm(50 + 10 * (WEIGHT[0] * z + BIAS[0]), 10 * SIGMA)


def dose(z):
    return stats.norm(2 * (WEIGHT[3] * z + BIAS[3]), 2 * SIGMA)


def is_female(z):
    return special.expit((WEIGHT[1] - WEIGHT[2]) * z + BIAS[1] - BIAS[2])


def test_draws_meet_the_conditions_and_have_their_mean(run, tmp_path, capsys):
    num = 4000
    call(sample.main, "--workdir", tmp_path, "--num", num, "--where", "age>60, sex=F", "--out", tmp_path / "s.csv")
    drawn = polars.read_csv(tmp_path / "s.csv")
    assert (len(drawn), drawn["age"].min() > 60, drawn["sex"].unique().to_list()) == (num, True, ["F"])
    p = integral(lambda z: is_female(z) * age(z).sf(60))
    assert f"log p of the conditions: {np.log(p):.3f} +- 0.000 nats" in capsys.readouterr().err
    mean = integral(lambda z: is_female(z) * age(z).sf(60) * dose(z).mean()) / p
    assert_within(drawn["dose"].mean(), mean, drawn["dose"].std() / num**0.5, 4)


def test_scores_are_those_of_rows_that_meet_the_conditions(run, tmp_path):
    """A row that meets them, rows that do not, a row whose cell they bound, a value that they fix."""
    (tmp_path / "t.csv").write_text("age,sex,dose\n65,F,1.5\n65,M,1.5\n55,F,1.5\n,F,1.5\n")
    flags = ("--workdir", tmp_path, "--data", tmp_path / "t.csv", "--out", tmp_path / "p.csv", "--overwrite")
    call(score.main, *flags, "--where", "age>60,sex=F")
    found = polars.read_csv(tmp_path / "p.csv")
    condition = integral(lambda z: is_female(z) * age(z).sf(60))
    whole = integral(lambda z: is_female(z) * age(z).pdf(65) * dose(z).pdf(1.5)) / condition
    part = integral(lambda z: is_female(z) * age(z).sf(60) * dose(z).pdf(1.5)) / condition
    assert np.isneginf(found["log_prob"].to_numpy()).tolist() == [False, True, True, False]
    kept = found.filter(polars.col("log_prob").is_finite())
    assert_within(kept["log_prob"], np.log([whole, part]), kept["standard_error"], 4)
    assert kept["standard_error"].max() < 0.03
    call(score.main, *flags, "--where", "age=65")
    found = polars.read_csv(tmp_path / "p.csv")
    assert np.isneginf(found["log_prob"].to_numpy()).tolist() == [False, False, True, False]
    truth = np.log(
        integral(lambda z: is_female(z) * age(z).pdf(65) * dose(z).pdf(1.5)) / integral(lambda z: age(z).pdf(65))
    )
    assert found["num_observed"].to_list() == [3, 3, 3, 2]
    for row in (0, 3):  # known to be 65, or given
        assert_within(found["log_prob"][row], truth, found["standard_error"][row], 4)


def test_gaps_are_filled_within_the_conditions(run, tmp_path):
    """With the mean of what is left; the other cells stay."""
    (tmp_path / "t.csv").write_text("age,sex,dose\n65,F,\n65,,\n")
    flags = ("--workdir", tmp_path, "--data", tmp_path / "t.csv", "--draws", 256, "--out", tmp_path / "i.csv")
    call(impute.main, *flags, "--where", "dose>0, sex!=M")
    found = polars.read_csv(tmp_path / "i.csv")
    assert (found["age"].to_list(), found["sex"].to_list()) == ([65, 65], ["F", "F"])

    def mean_above(z):
        law = dose(z)
        a = -law.mean() / law.std()
        return stats.truncnorm.mean(a, np.inf, law.mean(), law.std())

    weight = integral(lambda z: is_female(z) * age(z).pdf(65) * dose(z).sf(0))
    mean = integral(lambda z: is_female(z) * age(z).pdf(65) * dose(z).sf(0) * mean_above(z)) / weight
    assert_within(found["dose"], [mean, mean], found["dose_spread"].to_numpy() / 256**0.5, 4)


def test_what_cannot_be_met_is_refused(run, tmp_path, refused, monkeypatch):
    (tmp_path / "t.csv").write_text("age,sex,dose\n65,F,\n40,F,\n")
    data = ("--workdir", tmp_path, "--data", tmp_path / "t.csv", "--out", tmp_path / "o.csv")
    refused(
        "--where: there is no column 'height'", sample.main, *data[:2], "--num", 2, *data[4:], "--where", "height>2"
    )
    refused("cells of row 1 do not meet it", impute.main, *data, "--where", "age>60")
    refused("leave out --where", score.main, *data, "--where", "age>60", "--typical", 5)
    of_images = dataclasses.replace(run, form=kaem.data.Field((0.0,), (1.0,)))
    monkeypatch.setattr(sample, "load_run", lambda *_: of_images)
    npz = ("--num", 2, "--out", tmp_path / "o.npz")
    refused("--where='age>60' needs a run on a table", sample.main, *data[:2], *npz, "--where", "age>60")
