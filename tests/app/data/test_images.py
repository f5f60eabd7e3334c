"""Users' own images, in .npz files and folders."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from kaem_jax.app.data import DataSettings, load_dataset
from kaem_jax.errors import DataError
from tests.app.data.conftest import by_bytes
from tests.browser import png


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 6, 4, 3), dtype=np.uint8)


def save(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:03d}.png").write_bytes(png(image.squeeze()))


def load(path, name="folder", **settings):
    return load_dataset(DataSettings(name=name, path=str(path), **settings))


def labels_of(data):
    return data.train_labels(np.arange(len(data.train))).tolist()


def test_npz_with_two_parts_or_one_that_is_split_with_its_labels(tmp_path, images):
    labels = {"train_labels": np.arange(15), "test_labels": np.arange(5, dtype=np.uint8) + 20}
    np.savez(tmp_path / "a.npz", train=images[:15], test=images[15:], **labels)
    data = load(tmp_path / "a.npz", "npz")
    np.testing.assert_array_equal(data.train, images[:15])
    np.testing.assert_array_equal(data.held_out, images[15:])
    assert labels_of(data) == labels["train_labels"].tolist()
    np.testing.assert_array_equal(data.held_out_labels(np.arange(5)), labels["test_labels"])
    np.savez(tmp_path / "b.npz", train=images[:15], test=images[15:] > 127)  # bytes beside truth values
    data = load(tmp_path / "b.npz", "npz")
    assert (data.train.dtype, data.held_out.dtype, data.train_labels) == (np.float32, np.float32, None)
    np.testing.assert_allclose(data.train, images[:15] / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.held_out, images[15:] > 127)
    np.savez(tmp_path / "c.npz", images=images, labels=np.arange(20))
    data = load(tmp_path / "c.npz", "npz", test_fraction=0.25)
    np.testing.assert_array_equal(images[labels_of(data)], data.train)
    np.testing.assert_array_equal(images[data.held_out_labels(np.arange(5))], data.held_out)
    assert by_bytes(data.held_out) | by_bytes(data.train) == by_bytes(images)


def test_what_are_no_images_is_refused(tmp_path, refuses, images):
    np.savez(tmp_path / "whole.npz", images=images)
    np.save(tmp_path / "one.npy", np.zeros((20, 4, 4)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:900])
    save(tmp_path / "damaged", images[:2])
    (tmp_path / "damaged" / "1.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    for name, path, said in (
        ("npz", "one.npy", "np.savez"), ("npz", "none.npz", "No such file"), ("npz", "cut.npz", ""),
        ("folder", "damaged", "1.png is not an image"), ("folder", "empty", ".png"),
    ):  # fmt: skip
        with refuses(DataError, "data.path=", path, "cannot be read", said):
            load(tmp_path / path, name)
    for said, arrays in (
        ("train and test, or images", {"pictures": [[1]]}),
        ("float64 values from 0.0 to 16.0; wanted: uint8, floats in [0, 1]", {"images": [[0.0, 16.0]] * 3}),
        ("3 NaN, and images to train on have no gaps", {"images": [[0.5, np.nan]] * 3}),
        ("int64", {"images": [[0, 1]] * 3}),
        ("uint8 values 0 and 1", {"images": np.eye(3, dtype=np.uint8)}),
        ("integers, one for each image", {"images": [[0.5]] * 3, "labels": [1, 2]}),
        ("size 2 and the array at index 1 has size 1", {"train": [[0.5, 0.5]], "test": [[0.5]]}),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with refuses(DataError, "data.path", "a.npz", said):
            load(tmp_path / "a.npz", "npz")


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_images(tmp_path, images, channels):
    """GTSRB's folders are `Train` and `Test`, cameras write .PNG; hidden files and folders are none of the data."""
    images, train = images[..., :channels], tmp_path / "split" / "Train"
    save(train / "cats", images[:15])
    save(tmp_path / "split" / "Test", images[15:])
    (train / "cats" / "003.png").rename(train / "cats" / "003.PNG")
    (tmp_path / "split" / "Test" / "._000.png").write_bytes(b"\x00\x05\x16\x07 macOS")
    save(train / ".thumbnails", images[:3] // 2)
    data = load(tmp_path / "split")
    np.testing.assert_array_equal(data.train, images[:15])
    np.testing.assert_array_equal(data.held_out, images[15:])
    save(tmp_path / "all", images)
    data = load(tmp_path / "all", test_fraction=0.5)
    assert (len(data.train), len(data.held_out), data.train_labels) == (10, 10, None)


def test_sub_folders_are_classes(tmp_path, images, refuses, capsys):
    """Each has one number in both parts; test images of no class have no labels. Folders may be links, in circles."""
    for i, name in enumerate(("all/cats", "elsewhere", "all/owls")):
        save(tmp_path / name, images[5 * i : 5 * i + 5])
    (tmp_path / "all" / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all" / "owls" / "again").symlink_to(tmp_path / "all")
    data = load(tmp_path / "all", test_fraction=0.4)
    assert (len(data.train), len(data.held_out)) == (9, 6)
    for part, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        for image, label in zip(part, labels(np.arange(len(part))), strict=True):
            assert image.tobytes() in by_bytes(images[5 * label : 5 * label + 5])
    for i, name in enumerate(("train/cats", "train/dogs", "train/owls", "test/cats", "test/owls")):
        save(tmp_path / "both" / name, images[4 * i : 4 * i + 4])
    data = load(tmp_path / "both")
    assert labels_of(data) == [0] * 4 + [1] * 4 + [2] * 4
    assert data.held_out_labels(np.arange(8)).tolist() == [0] * 4 + [2] * 4
    assert data.is_labelled
    save(tmp_path / "both" / "test" / "more", images[:1])
    data = load(tmp_path / "both")
    assert labels_of(data) == [0] * 4 + [1] * 4 + [2] * 4
    assert (data.held_out_labels, data.is_labelled) == (None, False)
    assert "the class 'more'" in capsys.readouterr().err
    (tmp_path / "both" / "test").rename(tmp_path / "both" / "val")
    with refuses(DataError, "folders train and val", "rename val to test"):  # else they would be two classes
        load(tmp_path / "both")


def test_a_file_that_is_a_program_is_not_run(tmp_path, refuses, monkeypatch):
    """Pillow hands Encapsulated PostScript to Ghostscript, whatever the ending of the file is."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    header = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_text(header)
    with refuses(DataError, "a.png", "not an image"):
        load(tmp_path)


def test_pixels_of_other_kinds(tmp_path, refuses):
    """Of 16 bits the upper ones, of palettes the colours, transparent ones black; what has no range is refused."""
    deep = (np.arange(24).reshape(4, 6) * 2800).astype(np.uint16)
    save(tmp_path / "deep", [deep, deep + 1])
    np.testing.assert_array_equal(load(tmp_path / "deep").train[0, ..., 0], deep >> 8)
    colours = np.array([[200, 10, 0], [0, 106, 10], [9, 6, 250]], np.uint8)
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    picture = Image.fromarray(numbers, "P")
    picture.putpalette(colours.tobytes())
    (tmp_path / "palette").mkdir()
    for ending in ("png", "gif"):
        picture.save(tmp_path / "palette" / f"a.{ending}")
    np.testing.assert_array_equal(load(tmp_path / "palette").train[0], colours[numbers])
    pixels = np.full((2, 3, 4, 4), 200, np.uint8)
    pixels[..., 3] = np.array([0, 255, 200])[:, None]  # what is seen in part is as bright as it is given
    pixels[1, 0, :, :3] = 77  # a colour that nobody sees
    save(tmp_path / "transparent", pixels)
    data = load(tmp_path / "transparent", test_fraction=0.5)
    for part in (data.train, data.held_out):
        np.testing.assert_array_equal(part[0, :, 0], [[0] * 3, [200] * 3, [200] * 3])
    for mode, kind in (("F", np.float32), ("I", np.int32)):
        Image.fromarray(np.full((4, 4), 70_000, kind), mode).save(tmp_path / "palette" / "a.tiff")
        with refuses(DataError, "a.tiff", f"pixels of kind '{mode}'"):
            load(tmp_path / "palette")


def test_images_of_any_size_are_cropped_or_padded_to_squares(tmp_path, rng, refuses):
    """A white square on black: cropping keeps its centre, padding keeps all of it. A photograph keeps its colours."""
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    save(tmp_path, [wide, wide])
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "1.jpg", quality=95)
    settings = DataSettings(name="folder", path=str(tmp_path), test_fraction=0.4, image_size=8)

    def everything(**changes):
        data = load_dataset(dataclasses.replace(settings, **changes))
        return np.concatenate([data.train, data.held_out])

    cropped = everything()
    assert cropped.shape == (3, 8, 8, 3)
    assert sum((image[1:-1, 1:-1] == 255).all() for image in cropped) == 2
    assert max(np.ptp(image, axis=-1).mean() for image in cropped) > 20
    white = min(float(image.mean()) for image in everything(fit="pad")) / 255
    assert 0.1 < white < 0.15  # a ninth of the square; its height is rounded to 3 of 8 pixels
    assert everything(channels="grey").shape == (3, 8, 8, 1)
    with refuses(DataError, "has shape", "set data.image_size"):
        everything(image_size=0)
