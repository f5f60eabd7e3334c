"""The film of a run: its frames are what the checkpoints draw."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from kaem_jax.cli import film as command
from kaem_jax.evaluation import figures, latents
from kaem_jax.evaluation import film as film_module
from kaem_jax.evaluation.film import make_film
from kaem_jax.priors.uniform import open_uniform
from kaem_jax.runs.run import load_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.keys import sample_key
from tests.evaluation.conftest import small_run
from tests.training.conftest import call, copy_of

pytestmark = pytest.mark.slow


def frames_of(path):
    """As float32 [frames, height, width, 3] in 0..255."""
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        frames = []
        for k in range(film.n_frames):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB"), np.float32))
    return np.stack(frames)


def decoded(workdir, step):
    """From scratch: uniform numbers of one key through the quantiles and the decoder of a checkpoint, [36, 8, 8]."""
    run = load_run(workdir, step)
    table = run.model.prior.tabulate(run.params["prior"])
    u = open_uniform(jax.random.fold_in(sample_key(3), 0), (4096, *run.model.prior.event_shape))
    return np.asarray(run.model.decode(run.params, run.model.prior.quantile(table, u[:36]), table))


def test_frames_are_the_decoded_draws_of_the_checkpoints(finished, tmp_path, monkeypatch):
    """Read back from the file: six in a row, each pixel enlarged, colours of a palette of 256."""
    workdir = copy_of(finished, tmp_path)
    call(command.main, "--workdir", workdir, "--seed", 3)
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    shown, side, zoom = frames_of(workdir / "figures" / "training.gif"), 6 * 9, 9  # of an image and its border
    assert shown.shape[:2] == (len(steps), side * zoom)
    for frame, step in zip(shown[..., 0] / 255, steps, strict=True):
        pixels = frame[:, : side * zoom][zoom // 2 :: zoom, zoom // 2 :: zoom]
        images = pixels.reshape(6, 9, 6, 9)[:, 1:, :, 1:].transpose(0, 2, 1, 3)
        np.testing.assert_allclose(images.reshape(36, 8, 8), decoded(workdir, step), atol=0.03)
    # To the last digits: the checkpoints differ by less than the colours of a palette.
    film = make_film(RunFolder(workdir), seed=3)
    for images, step in zip(film.samples, film.steps, strict=True):
        np.testing.assert_allclose(images, decoded(workdir, step), atol=1e-6)
    assert np.abs(film.samples[0] - film.samples[-1]).max() > 1e-2
    # Three latents with other densities at each checkpoint; the one that moves most of the output comes first.
    run, runs = small_run(prior__num_latents=3), {}

    def load(root, step):
        bank = run.params["prior"]["bank"]
        coefficients = jax.random.normal(jax.random.key(step), bank["coefficients"].shape)
        prior = run.params["prior"] | {"bank": bank | {"coefficients": coefficients}}
        return runs.setdefault(step, dataclasses.replace(run, params=run.params | {"prior": prior}))

    monkeypatch.setattr(film_module, "load_run", load)
    monkeypatch.setattr(latents, "explained_variance", lambda *_: np.array([0.2, 0.1, 0.7]))
    film = make_film(RunFolder(workdir), seed=3)
    assert film.names == ["z2", "z0", "z1"]
    for k, step in enumerate(film.steps):
        prior, params = run.model.prior, runs[step].params["prior"]
        at = np.moveaxis(film.z[k], 1, 0)[np.argsort([2, 0, 1])].T  # in the order of the latents
        density = prior.density(prior.tabulate(params), at)
        base = np.exp(prior.base.log_prob({}, at))
        for column, latent in enumerate((2, 0, 1)):
            np.testing.assert_allclose(film.density[k, :, column], density[:, latent], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(film.base[k, :, column], base[:, latent], rtol=1e-4, atol=1e-5)
        gaps = [np.abs(film.density[k, :, i] - film.density[k, :, i - 1]).max() for i in range(3)]
        assert min(gaps) > 0.01  # no density could stand for another one


def test_a_run_with_one_checkpoint_is_refused(finished, tmp_path, sentence, refused):
    workdir = copy_of(finished, tmp_path)
    for old in sorted((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))[:-1]:
        shutil.rmtree(old)
    code, line = sentence(command.main, "--workdir", workdir)
    parts = ("keeps 1", "two checkpoints or more", "--config.checkpoint.keep_last", "every_steps")
    assert (code, [part for part in parts if part not in line]) == (2, []), line
    assert not (workdir / "figures" / "training.gif").exists()


@pytest.mark.parametrize("side", [8, 15, 16, 18, 37])
@pytest.mark.parametrize("has_images", [True, False])
def test_each_frame_shows_its_own(tmp_path, side, has_images):
    """Samples that are black and then white, a density that grows; and densities alone, where data are no images.

    Heights may be no whole number of inches: the canvas must not be a row shorter than the images.
    """
    z = np.linspace(0, 1, 50)[None, :, None].repeat(2, axis=0)
    samples = np.stack([np.zeros((36, side, side, 3)), np.ones((36, side, side, 3))]) if has_images else None
    grown = np.stack([z[0], 2 * z[0]])
    figures.write_film(tmp_path / "f.gif", [1, 2000], samples, z, grown, np.ones_like(z), ["z0"])
    frames = frames_of(tmp_path / "f.gif")
    width = frames.shape[2] - 280
    assert (len(frames), width > 0) == (2, has_images)
    if has_images:
        assert [int(frame[20, 20].max()) // 250 for frame in frames] == [0, 1]
    blue = [np.sum(frame[:, width:, 2] - frame[:, width:, 0] > 20) for frame in frames]
    assert blue[1] > 1.5 * blue[0] > 0  # the filled area
