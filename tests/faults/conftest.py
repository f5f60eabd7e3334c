"""The run of tests/training."""

from tests.training.conftest import as_users_run_it, finished, refused, sentence  # noqa: F401
