"""Data prepared by tensorflow_datasets, read by its own reader: the pixels, and what is said where there are none."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image

from kaem_jax.app.data import PIXELS, DataSettings, load_dataset, read_given
from kaem_jax.app.data.config import PREPARED
from kaem_jax.app.data.prepared import PreparedImages
from kaem_jax.errors import DataError
from tests.app.data.conftest import pixels
from tests.browser import png


@pytest.mark.parametrize(("name", "shape"), [("svhn_cropped", (32, 32, 3)), ("mnist", (28, 28, 1))])
def test_pixels_come_back_as_they_were_written(prepare, monkeypatch, name, shape):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare(name, 60)))
    in_memory, on_disk = (load_dataset(DataSettings(name=name, storage=storage)) for storage in ("auto", "disk"))
    assert (in_memory.data_shape, in_memory.train.dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(in_memory.train, pixels(name, "train")[:60])
    for data in (in_memory, on_disk):
        np.testing.assert_array_equal(data.held_out, pixels(name, "test")[:60])
    chosen = np.array([41, 3, 3, 59], np.int32)  # decoded on demand, in any order
    assert on_disk.train.shape == (60, *shape)
    np.testing.assert_array_equal(on_disk.train[chosen], in_memory.train[chosen])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for storage, is_shared in (("auto", True), ("device", True), ("host", False)):
        assert isinstance(load_dataset(DataSettings(name=name, storage=storage)).train, PreparedImages) == is_shared


@pytest.mark.parametrize("storage", ["auto", "disk"])
def test_labels_follow_their_images(prepare, storage):
    """Cut to a few and with a validation split taken out: each label is that of its image."""
    written, name = pixels("svhn_cropped", "train", "labels"), "svhn_cropped"
    by_image = {image.tobytes(): label for image, label in zip(pixels(name, "train"), written, strict=True)}
    cut = {"held_out": "validation", "validation_size": 20, "num_train": 30, "num_held_out": 10}
    data = load_dataset(DataSettings(name=name, dir=str(prepare(name, 60)), storage=storage, **cut))
    assert data.train.shape == (30, 32, 32, 3)
    assert isinstance(data.train, np.ndarray) == (storage == "auto")  # a part of what is on disk stays there
    for images, labels, rows in (
        (data.train, data.train_labels, [29, 0, 7]), (data.held_out, data.held_out_labels, range(10)),
    ):  # fmt: skip
        assert labels(np.array(rows)).tolist() == [by_image[image.tobytes()] for image in images[np.array(rows)]]
    assert len(set(written[:60])) > 5


def test_what_is_not_prepared_is_refused_with_the_command_that_prepares_it(refuses, tmp_path, monkeypatch):
    for name in PREPARED:
        command = f"pip install tensorflow && tfds build {name} --data_dir={tmp_path} --file_format=array_record"
        with refuses(DataError, f"data.name={name!r}", f"under {tmp_path}", "data.dir", command):
            load_dataset(DataSettings(name=name, dir=str(tmp_path)))
    place(tmp_path, name, "1.0.0")  # whose description is damaged
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with refuses(DataError, f"under {tmp_path}", command):
        load_dataset(DataSettings(name=name))


def test_what_cannot_be_read_by_index_is_refused(refuses, prepare, tmp_path):
    """What `tfds build` writes by default cannot be read without tensorflow; a file may be lost."""
    folder = prepare("mnist", 5, "--primary", "tfrecord")
    (file,) = folder.rglob("dataset_info.json")
    info = json.loads(file.read_text())
    assert info.pop("alternativeFileFormats") == ["array_record"]
    file.write_text(json.dumps(info))
    with refuses(DataError, "data.name='mnist'", "cannot be read by index", "--file_format=array_record"):
        load_dataset(DataSettings(name="mnist", dir=str(folder)))
    shutil.copytree(prepare("mnist", 60), tmp_path / "copy")
    next((tmp_path / "copy").rglob("*-train.array_record*")).unlink()
    with refuses(DataError, "data.dir", "mnist-train.array_record"):
        load_dataset(DataSettings(name="mnist", dir=str(tmp_path / "copy")))


class Records(list):
    """What tfds calls a data source."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


def place(folder, name, *versions):
    for version in versions:
        (folder / name / version).mkdir(parents=True)
        (folder / name / version / "dataset_info.json").touch()
    return str(folder)


def test_the_newest_version_under_data_dir_is_opened_and_stays_on_disk_if_it_may(tmp_path, monkeypatch):
    tfds, opened = pytest.importorskip("tensorflow_datasets"), []

    def builder(folder):
        """Three black images in each split."""
        opened.append(folder)
        info = types.SimpleNamespace(
            features={"image": types.SimpleNamespace(shape=(4, 4, 3))},
            splits=dict.fromkeys(("train", "test"), types.SimpleNamespace(num_examples=3)),
        )
        source = Records([{"image": png(np.zeros((4, 4, 3), np.uint8))}] * 6)
        return types.SimpleNamespace(as_data_source=lambda split, decoders: source, info=info)

    monkeypatch.setattr(tfds, "builder_from_directory", builder)
    monkeypatch.setenv("TFDS_DATA_DIR", place(tmp_path / "shared", "cifar10", "11.0.0"))
    settings = DataSettings(name="cifar10", dir=place(tmp_path / "own", "cifar10", "3.1.0", "10.0.0", "9.2.0"))
    assert isinstance(load_dataset(settings, lazy=True).train, PreparedImages)
    assert opened == [tmp_path / "own" / "cifar10" / "10.0.0"]


def portrait(content, size):
    """An image file of celeb_a, as training sees it."""
    images = PreparedImages(Records([{"image": content}]), (size, size, 3), crop=True, rows=np.arange(1))
    return images[np.array([0])].astype(int)[0]


def test_a_portrait_is_cropped_at_its_centre_and_scaled_also_where_it_is_given(tmp_path, rng):
    """Celeb_a's 218 x 178 keep their middle 140 x 140, in training and for a command; others do not."""
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    image = portrait(png(np.stack([rows, columns, 0 * rows], axis=-1)), 70)
    # Pixel i of the scaled crop covers the rows 39 + 2i and 40 + 2i, the columns 19 + 2i and 20 + 2i.
    np.testing.assert_allclose(image[1:-1, 10, 0], 39.5 + 2 * np.arange(1, 69), atol=1)
    np.testing.assert_allclose(image[10, 1:-1, 1], 19.5 + 2 * np.arange(1, 69), atol=1)
    smooth, path = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)), tmp_path / "p"
    settings, other = DataSettings(name="celeb_a"), DataSettings(name="folder", path="x", image_size=64, fit="crop")
    for kind in ("png", "jpeg"):
        smooth.resize((178, 218)).save(path, kind, quality=95)
        (found,) = read_given(str(path), PIXELS, (64, 64, 3), settings)
        np.testing.assert_allclose(found, portrait(path.read_bytes(), 64) / 255, rtol=1e-6)
    smooth.resize((356, 436)).save(path, "png")
    whole, cropped = (read_given(str(path), PIXELS, (64, 64, 3), s) for s in (settings, other))
    np.testing.assert_array_equal(whole, cropped)
