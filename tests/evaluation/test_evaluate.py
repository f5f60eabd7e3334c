"""The keys, rows and files of an evaluation."""

import numpy as np
import pytest

from kaem_jax.data import Dataset
from kaem_jax.evaluation import evaluate
from kaem_jax.runs.run import Run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.keys import evaluation_keys
from tests.evaluation.conftest import numbers_of
from tests.training.tiny import tiny_config


@pytest.mark.parametrize("bits", [np.uint8, np.float32])
def test_each_evaluator_has_a_key_of_its_own_and_labels_of_its_rows(tmp_path, bits):
    images, rows = np.zeros((30, 8, 8), bits), np.array([7, 2, 9])
    dataset = Dataset(images, images, np.arange(30).__getitem__, np.arange(30).__getitem__)
    run = Run(tiny_config(evaluation__num_reconstructions=2), None, {}, 0, None, None)
    found = evaluate._evaluators(run, dataset, rows, images[rows], RunFolder(tmp_path), (), None, 50, seed=4)
    by_name = {type(evaluator).__name__: evaluator for _, evaluator in found}
    keys = {numbers_of(e.key) for e in by_name.values() if hasattr(e, "key")}
    assert keys == {numbers_of(key) for name, key in evaluation_keys(4)._asdict().items() if name != "figures"}
    assert by_name["Clusters"].labels(np.arange(3)).tolist() == rows.tolist()
    assert [len(by_name[name].x) for name in ("HeldOutLikelihood", "Clusters")] == [3, 3]
    assert [len(by_name[name].x) for name in ("Reconstruction", "ActiveLatents", "Mixing", "LatentUse")] == [2] * 4
    assert {by_name[name].seed for name in ("SampleComparison", "ValueComparison", "Distinct")} == {4}
    assert by_name["HeldOutLikelihood"].of_pixels == (bits == np.uint8)
    assert by_name["HeldOutLikelihood"].estimator == by_name["LatentUse"].estimator
    assert by_name["HeldOutLikelihood"].estimator == run.config.evaluation.estimator.final
    unlabelled = evaluate._evaluators(run, Dataset(images, images), rows, images, RunFolder(tmp_path), (), None, 50, 4)
    assert {type(e).__name__: e for _, e in unlabelled}["Clusters"].labels is None


def test_numbers_of_one_checkpoint_are_kept_and_those_of_another_set_aside(tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 10}\n{"step": 20}\n')

    def kept(step, identity, metrics, is_chosen):
        found = evaluate._kept(
            folder, step, identity, {name: {"seed": seed} for name, seed in metrics.items()}, is_chosen
        )
        written = folder.read_evaluation()
        assert (written["step"], written["trained_to"], written["run"]) == (step, 20, identity)
        assert written["metrics"] == found
        return {name: numbers["seed"] for name, numbers in found.items()}, written["chosen_by_these_data"]

    assert kept(10, 1, {"kid": 1, "fid": 2}, True) == ({"fid": 2, "kid": 1}, True)
    assert kept(10, 1, {"kid": 3}, False) == ({"fid": 2, "kid": 3}, True)  # these data chose the step before
    assert kept(20, 1, {"kid": 4}, False) == ({"kid": 4}, False)
    assert folder.read_evaluation(10)["metrics"]["fid"] == {"seed": 2}
    assert kept(10, 1, {"copying": 5}, False) == ({"fid": 2, "kid": 3, "copying": 5}, True)
    assert kept(10, 2, {"kid": 6}, False) == ({"kid": 6}, False)  # another run has the folder now
    assert kept(10, 2, {"fid": 7}, True) == ({"fid": 7, "kid": 6}, True)
