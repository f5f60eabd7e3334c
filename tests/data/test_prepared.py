"""Data prepared by tensorflow_datasets, read by its own reader: the pixels, and what is said where there are none."""

import io
import json
import types

import numpy as np
import pytest
from PIL import Image

from kaem_jax.contrib.explorer.upload import read_upload
from kaem_jax.data import PIXELS, DataSettings, fit_of, load_dataset, read_given
from kaem_jax.data.prepared import PreparedImages
from kaem_jax.data.settings import PREPARED
from kaem_jax.errors import DataError
from tests.data.conftest import pixels

SHAPES = {"svhn_cropped": (32, 32, 3), "cifar10": (32, 32, 3), "mnist": (28, 28, 1)}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_pixels_come_back_as_they_were_written(prepare, name, shape):
    folder = prepare(name, 60)
    in_memory = load_dataset(DataSettings(name=name, dir=str(folder)))
    assert in_memory.data_shape == shape
    assert in_memory.train.dtype == np.uint8
    np.testing.assert_array_equal(in_memory.train, pixels(name, "train")[:60])
    np.testing.assert_array_equal(in_memory.held_out, pixels(name, "test")[:60])
    # Decoded on demand, in any order.
    on_disk = load_dataset(DataSettings(name=name, dir=str(folder), storage="disk"))
    chosen = np.array([41, 3, 3, 59], np.int32)
    assert on_disk.train.shape == (60, *shape)
    np.testing.assert_array_equal(on_disk.train[chosen], in_memory.train[chosen])
    np.testing.assert_array_equal(on_disk.held_out, in_memory.held_out)


def test_labels_follow_their_images(prepare):
    """Cut to a few and with a validation split taken out, on disk or in memory: each label is that of its image."""
    folder = str(prepare("svhn_cropped", 60))
    written = pixels("svhn_cropped", "train", "labels")
    by_image = {image.tobytes(): label for image, label in zip(pixels("svhn_cropped", "train"), written, strict=True)}
    for storage in ("auto", "disk"):
        cut = {"held_out": "validation", "validation_size": 20, "num_train": 30, "num_held_out": 10}
        data = load_dataset(DataSettings(name="svhn_cropped", dir=folder, storage=storage, **cut))
        rows = np.array([29, 0, 7])
        assert data.train.shape == (30, 32, 32, 3)
        assert isinstance(data.train, np.ndarray) == (storage == "auto")  # a part of what is on disk stays there
        assert data.train_labels(rows).tolist() == [by_image[image.tobytes()] for image in data.train[rows]]
        assert data.held_out_labels(np.arange(10)).tolist() == [by_image[image.tobytes()] for image in data.held_out]
    assert len(set(written[:60])) > 5


def test_the_environment_names_the_directory(prepare, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare("mnist", 5)))
    assert len(load_dataset(DataSettings(name="mnist")).train) == 5


@pytest.mark.parametrize("name", PREPARED)
def test_what_is_not_prepared_is_refused_with_the_command_that_prepares_it(refuses, tmp_path, monkeypatch, name):
    command = f"pip install tensorflow && tfds build {name} --data_dir={tmp_path} --file_format=array_record"
    with refuses(DataError, f"data.name={name!r}", f"under {tmp_path}", "data.dir", command):
        load_dataset(DataSettings(name=name, dir=str(tmp_path)))
    (tmp_path / name / "1.0.0").mkdir(parents=True)
    (tmp_path / name / "1.0.0" / "dataset_info.json").touch()  # damaged
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with refuses(DataError, f"under {tmp_path}", command):
        load_dataset(DataSettings(name=name))


def test_what_cannot_be_read_by_index_is_refused(refuses, prepare):
    """What `tfds build` writes by default cannot be read without tensorflow; a file may be lost."""
    folder = prepare("mnist", 5, "--primary", "tfrecord")
    (file,) = folder.rglob("dataset_info.json")
    info = json.loads(file.read_text())
    assert info.pop("alternativeFileFormats") == ["array_record"]
    file.write_text(json.dumps(info))
    with refuses(DataError, "data.name='mnist'", "cannot be read by index", "--file_format=array_record"):
        load_dataset(DataSettings(name="mnist", dir=str(folder)))
    folder = prepare("mnist", 5)
    next(folder.rglob("*-train.array_record*")).unlink()
    with refuses(DataError, "data.dir", "mnist-train.array_record"):
        load_dataset(DataSettings(name="mnist", dir=str(folder)))


class Records(list):
    """What tfds calls a data source."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


def record(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return {"image": buffer.getvalue()}


@pytest.fixture
def builders(monkeypatch):
    """The folders that are opened, one after the other; each has three images in each split."""
    tfds, opened = pytest.importorskip("tensorflow_datasets"), []

    def builder(folder):
        opened.append(folder)
        image = np.full((218, 178, 3), 9, np.uint8)
        three = types.SimpleNamespace(num_examples=3)
        features = {"image": types.SimpleNamespace(shape=image.shape)}
        return types.SimpleNamespace(
            as_data_source=lambda split, decoders: Records([record(image)] * 6),
            info=types.SimpleNamespace(features=features, splits=dict.fromkeys(("train", "test"), three)),
        )

    monkeypatch.setattr(tfds, "builder_from_directory", builder)
    return opened


def place(folder, name, *versions):
    for version in versions:
        (folder / name / version).mkdir(parents=True)
        (folder / name / version / "dataset_info.json").touch()
    return str(folder)


def test_the_newest_version_under_data_dir_is_opened(builders, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", place(tmp_path / "shared", "cifar10", "11.0.0"))
    own = place(tmp_path / "own", "cifar10", "3.1.0", "10.0.0", "9.2.0")
    load_dataset(DataSettings(name="cifar10", dir=own))
    assert builders == [tmp_path / "own" / "cifar10" / "10.0.0"]


def test_images_stay_on_disk_where_they_are_not_needed(builders, tmp_path):
    settings = DataSettings(name="cifar10", dir=place(tmp_path, "cifar10", "1.0.0"))
    read, on_disk = load_dataset(settings), load_dataset(settings, lazy=True)
    assert isinstance(read.train, np.ndarray)
    assert isinstance(on_disk.train, PreparedImages)
    np.testing.assert_array_equal(on_disk.train[np.arange(3)], read.train)


def portraits(*records, size):
    return PreparedImages(Records(records), (size, size, 3), crop=True, rows=np.arange(len(records)))


def test_portraits_are_cropped_at_their_centre_and_scaled():
    """celeb_a's 218 x 178: a picture whose colours tell rows and columns must keep its middle 140 x 140."""
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    images = portraits(record(np.stack([rows, columns, 0 * rows], axis=-1)), size=70)
    image = images[np.array([0])][0].astype(int)
    assert image.shape == (70, 70, 3)
    # Pixel i of the scaled crop covers the rows 39 + 2i and 40 + 2i, the columns 19 + 2i and 20 + 2i.
    np.testing.assert_allclose(image[1:-1, 10, 0], 39.5 + 2 * np.arange(1, 69), atol=1)
    np.testing.assert_allclose(image[10, 1:-1, 1], 19.5 + 2 * np.arange(1, 69), atol=1)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_portrait_that_is_given_is_framed_as_those_of_training(tmp_path, rng, ending):
    """To a command, and on the page. Of another size it is cropped as any image."""
    smooth = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((178, 218))
    smooth.save(tmp_path / f"portrait.{ending}", quality=95)
    content = (tmp_path / f"portrait.{ending}").read_bytes()
    (expected,) = portraits({"image": content}, size=64)[np.array([0])] / 255
    settings, other = DataSettings(name="celeb_a"), DataSettings(name="folder", path="x", image_size=64, fit="crop")
    (found,) = read_given(str(tmp_path / f"portrait.{ending}"), PIXELS, (64, 64, 3), settings)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(read_upload(content, (64, 64, 3), fit_of(settings)), expected, rtol=1e-6)
    smooth.resize((356, 436)).save(tmp_path / "large.png")
    whole, cropped = (read_given(str(tmp_path / "large.png"), PIXELS, (64, 64, 3), s) for s in (settings, other))
    np.testing.assert_array_equal(whole, cropped)
