"""What follows the length of a run, where that alone is given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaem_jax.app.experiment.experiment import Train
from kaem_jax.app.experiment.experiment_file import read_experiment
from kaem_jax.errors import ConfigError

NAMES = (
    "breast_cancer", "celeba", "cifar10:tiny", "darcy", "digits", "mnist", "sms", "svhn", "svhn:paper_tiny",
    "baselines/neural:tiny", "svhn_tempered", "toys:moons", "wine:tiny",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(20, 200_000))
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
