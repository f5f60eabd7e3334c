"""The film of a run: its frames are what the checkpoints draw."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from kaem_jax.cli import kaem as kaem_command
from kaem_jax.evaluation import figures, latents
from kaem_jax.evaluation import film as film_module
from kaem_jax.evaluation.film import make_film
from kaem_jax.priors.uniform import open_uniform
from kaem_jax.runs.run import load_run
from kaem_jax.runs.run_folder import RunFolder
from kaem_jax.training.keys import sample_key
from tests.evaluation.conftest import small_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filmed(finished, tmp_path_factory):
    """A copy of the finished run with its film, of the draws of seed 3."""
    workdir = tmp_path_factory.mktemp("filmed") / "run"
    shutil.copytree(finished[0], workdir)
    assert kaem_command.main(["film", "--workdir", str(workdir), "--seed", "3"]) == 0
    return workdir


def decoded(workdir, step):
    """From scratch: uniform numbers of one key through the quantiles and the decoder of a checkpoint, [36, 8, 8]."""
    run = load_run(workdir, step)
    table = run.model.prior.tabulate(run.params["prior"])
    u = open_uniform(jax.random.fold_in(sample_key(3), 0), (4096, *run.model.prior.event_shape))
    return np.asarray(run.model.decode(run.params, run.model.prior.quantile(table, u[:36]), table))


def test_frames_are_the_decoded_draws_of_the_checkpoints(filmed):
    """Read back from the file: six in a row, each pixel enlarged, colours of a palette of 256."""
    steps = sorted(int(path.name) for path in (filmed / "checkpoints").iterdir())
    assert len(steps) > 1
    with Image.open(filmed / "figures" / "training.gif") as film:
        assert film.n_frames == len(steps)
        assert film.info["loop"] == 0
        shown = []
        for k in range(len(steps)):
            film.seek(k)
            shown.append(np.asarray(film.convert("RGB"), np.float32)[..., 0] / 255)
    side, zoom = 6 * 9, 9  # of an image and its border, and how often 480 holds them
    for frame, step in zip(shown, steps, strict=True):
        assert len(frame) == side * zoom
        pixels = frame[:, : side * zoom][zoom // 2 :: zoom, zoom // 2 :: zoom]
        images = pixels.reshape(6, 9, 6, 9)[:, 1:, :, 1:].transpose(0, 2, 1, 3)
        np.testing.assert_allclose(images.reshape(36, 8, 8), decoded(filmed, step), atol=0.03)


def test_samples_are_the_decoded_draws_of_the_checkpoints(filmed):
    """To the last digits: the two checkpoints differ by less than the colours of a palette."""
    film = make_film(RunFolder(filmed), seed=3)
    for images, step in zip(film.samples, film.steps, strict=True):
        np.testing.assert_allclose(images, decoded(filmed, step), atol=1e-6)
    assert np.abs(film.samples[0] - film.samples[-1]).max() > 1e-2


def test_densities_are_those_of_the_checkpoints(filmed, monkeypatch):
    """Three latents with other densities at each checkpoint; the one that moves most of the output comes first."""
    run, runs = small_run(prior__num_latents=3), {}

    def load(root, step):
        bank = run.params["prior"]["bank"]
        coefficients = jax.random.normal(jax.random.key(step), bank["coefficients"].shape)
        prior = run.params["prior"] | {"bank": bank | {"coefficients": coefficients}}
        return runs.setdefault(step, dataclasses.replace(run, params=run.params | {"prior": prior}))

    monkeypatch.setattr(film_module, "load_run", load)
    monkeypatch.setattr(latents, "explained_variance", lambda *_: np.array([0.2, 0.1, 0.7]))
    film = make_film(RunFolder(filmed), seed=3)
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


def test_a_run_with_one_checkpoint_is_refused(finished, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for old in sorted((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))[:-1]:
        shutil.rmtree(old)
    assert kaem_command.main(["film", "--workdir", str(workdir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("keeps 1", "two checkpoints or more", "--config.checkpoint.keep_last", "every_steps"):
        assert part in line
    assert not (workdir / "figures" / "training.gif").exists()
    assert kaem_command.main(["film", "--workdir", str(tmp_path)]) == 2
    assert "not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("side", [15, 16, 18, 37])
def test_images_of_any_side_have_their_densities_beside_them(tmp_path, side):
    """Heights that are no whole number of inches: the canvas must not be a row shorter than the images."""
    z = np.linspace(0, 1, 5)[None, :, None]
    figures.write_film(tmp_path / "f.gif", [1], np.zeros((1, 36, side, side)), z, z, z, ["z0"])
    with Image.open(tmp_path / "f.gif") as film:
        assert film.size[0] > 280


def test_each_frame_shows_its_own(tmp_path, monkeypatch):
    """Samples that are black and then white, a density that grows; and densities alone, where data are no images."""
    z = np.linspace(0, 1, 50)[None, :, None].repeat(2, axis=0)
    curves = z, np.stack([z[0], 2 * z[0]]), np.ones_like(z), ["z0"]
    samples = np.stack([np.zeros((36, 8, 8, 3)), np.ones((36, 8, 8, 3))])
    titles, densities = [], figures._film_densities
    monkeypatch.setattr(
        figures, "_film_densities", lambda title, *given: titles.append(title) or densities(title, *given)
    )
    for name, drawn, width in (("both", samples, 6 * 9 * 9), ("alone", None, 0)):
        path = tmp_path / f"{name}.gif"
        figures.write_film(path, [1, 2000], drawn, *curves)
        assert titles[-2:] == ["step 1", "step 2,000"]
        with Image.open(path) as film:
            assert film.size == (width + 280, 6 * 9 * 9 if width else 480)
            frames = []
            for k in range(film.n_frames):
                film.seek(k)
                frames.append(np.asarray(film.convert("RGB"), np.int32))
        assert len(frames) == 2
        if width:
            assert [int(frame[20, 20].max()) // 250 for frame in frames] == [0, 1]
        blue = [np.sum(frame[:, width:, 2] - frame[:, width:, 0] > 20) for frame in frames]
        assert blue[1] > 1.5 * blue[0]  # the filled area
