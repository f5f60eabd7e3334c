"""Users' own data, and what of a data set is trained on and held out."""

import numpy as np
import pytest
from PIL import Image

from kaem_jax.config import DataConfig
from kaem_jax.data import DataError, load_dataset


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 6, 4, 3), dtype=np.uint8)


def save(folder, images):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{i:03d}.png")


def by_bytes(images):
    return {image.tobytes() for image in images}


def test_npz_with_two_parts(tmp_path, images):
    np.savez(tmp_path / "a.npz", train=images[:15], test=images[15:].astype(np.float64) / 255)
    data = load_dataset(DataConfig(name="npz", path=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(data.train, images[:15])
    assert data.test.dtype == np.float32
    np.testing.assert_allclose(data.test, images[15:] / 255, rtol=1e-6)


def test_npz_with_one_part_is_split_the_same_way_every_time(tmp_path, images):
    np.savez(tmp_path / "a.npz", images=images)
    settings = DataConfig(name="npz", path=str(tmp_path / "a.npz"), test_fraction=0.25)
    data, again = load_dataset(settings), load_dataset(settings)
    assert len(data.test) == 5
    assert by_bytes(data.test) | by_bytes(data.train) == by_bytes(images)
    assert not by_bytes(data.test) & by_bytes(data.train)
    np.testing.assert_array_equal(data.test, again.test)


def test_labels_of_npz_follow_the_split(tmp_path, images, refuses):
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20))
    data = load_dataset(DataConfig(name="npz", path=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(images[data.train_labels(np.arange(18))], data.train)
    np.testing.assert_array_equal(images[data.test_labels(np.arange(2))], data.test)
    np.savez(tmp_path / "b.npz", train=images, test=images, train_labels=np.arange(19))
    with refuses(DataError, "b.npz", "train_labels of shape (19,)", "integers of shape (20,)"):
        load_dataset(DataConfig(name="npz", path=str(tmp_path / "b.npz")))


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_images(tmp_path, images, channels):
    images = images[..., :channels]
    save(tmp_path / "split" / "train" / "cats", images[:15])
    save(tmp_path / "split" / "test", images[15:])
    data = load_dataset(DataConfig(name="folder", path=str(tmp_path / "split")))
    np.testing.assert_array_equal(data.train, images[:15])
    np.testing.assert_array_equal(data.test, images[15:])
    save(tmp_path / "all", images)
    data = load_dataset(DataConfig(name="folder", path=str(tmp_path / "all"), test_fraction=0.5))
    assert (len(data.train), len(data.test)) == (10, 10)


def test_sixteen_bit_images_keep_their_upper_bits(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    pixels = (np.arange(24).reshape(4, 6) * 2800).astype(np.uint16)
    for i in range(4):
        Image.fromarray(pixels + i).save(folder / f"{i}.png")
    data = load_dataset(DataConfig(name="folder", path=str(folder), test_fraction=0.5))
    np.testing.assert_array_equal(data.train[0, ..., 0], pixels >> 8)


def test_a_validation_split_leaves_the_test_split_alone():
    data = load_dataset(DataConfig())
    chosen = load_dataset(DataConfig(held_out="validation", validation_size=300))
    assert (len(chosen.train), len(chosen.test)) == (1137, 300)
    assert by_bytes(chosen.train) | by_bytes(chosen.test) == by_bytes(data.train)
    assert not by_bytes(chosen.train) & by_bytes(chosen.test)
    few = load_dataset(DataConfig(num_train=100, num_held_out=7))
    np.testing.assert_array_equal(few.train, data.train[:100])
    np.testing.assert_array_equal(few.test, data.test[:7])


def test_refusals(refuses, tmp_path, images):
    def refused(*parts, name="npz", **settings):
        with refuses(DataError, *parts):
            load_dataset(DataConfig(name=name, **settings))

    missing = str(tmp_path / "none.npz")
    refused("data.path=", "none.npz", "does not exist", path=missing)
    refused("data.path=", "does not exist", "folder of images", name="folder", path=missing)
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    refused("broken.npz", "cannot be read", path=str(tmp_path / "broken.npz"))
    np.savez(tmp_path / "whole.npz", images=images)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:900])
    refused("cut.npz", "cannot be read", path=str(tmp_path / "cut.npz"))
    for file, arrays, parts in (
        ("names", {"pictures": images}, ["['pictures']", "train and test, or images"]),
        ("range", {"train": images * 1.0, "test": images}, ["float64", "[0, 1]"]),
        ("ints", {"train": images.astype(np.int64), "test": images}, ["int64", "uint8"]),
        ("empty", {"train": images[:0], "test": images}, ["(0, 6, 4, 3)", "N > 0"]),
        ("nan", {"train": np.full((2, 3), np.nan), "test": images}, ["[0, 1]"]),
        ("shapes", {"train": images, "test": images[:, :5]}, ["(6, 4, 3)", "(5, 4, 3)"]),
    ):
        np.savez(tmp_path / f"{file}.npz", **arrays)
        refused(file, *parts, path=str(tmp_path / f"{file}.npz"))
    (tmp_path / "empty").mkdir()
    refused("holds no images", ".png", name="folder", path=str(tmp_path / "empty"))
    save(tmp_path / "mixed", images)
    Image.fromarray(images[0, :3]).save(tmp_path / "mixed" / "last.png")
    refused("last.png has shape (3, 4, 3)", "(6, 4, 3)", name="folder", path=str(tmp_path / "mixed"))
    (tmp_path / "mixed" / "last.png").write_bytes(b"no image")
    refused("last.png", "cannot be read as an image", name="folder", path=str(tmp_path / "mixed"))
    refused("data.validation_size=1437", "below 1437", name="digits", held_out="validation", validation_size=1437)
