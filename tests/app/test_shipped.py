"""Numbers of the experiments that ship and that no other test would miss."""

import pytest

from kaem_jax.app.experiment.experiment_file import read_experiment


def test_kept_populations_adapt_at_first_on_a_ladder_that_suits_an_encoder():
    for variant, num_temperatures in (("", 6), (":tiny", 3)):
        posterior = read_experiment(f"svhn_tempered{variant}").stages[-1].posterior
        assert (posterior.num_temperatures, posterior.num_steps, posterior.steps_per_round) == (num_temperatures, 2, 1)
        assert (posterior.adapt_steps, posterior.exponent, posterior.step_size) == (1_000_000, 1.0, 0.3)
        assert posterior.persistent


@pytest.mark.parametrize("name", ["wine", "darcy", "sms", "toys"])
def test_the_average_of_parameters_is_of_the_last_hundred_updates(name):
    assert read_experiment(name).optimizer.average_decay == 0.99
