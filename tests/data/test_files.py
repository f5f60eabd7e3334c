"""Users' own data, and what of a data set is trained on and held out."""

import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets, model_selection

import kaem_jax as kaem
from kaem_jax.contrib.explorer.upload import read_upload
from kaem_jax.data import Dataset, load_dataset, some_rows, to_pixels
from kaem_jax.errors import DataError
from kaem_jax.data.folder import Layout, read_images
from kaem_jax.errors import RunError
from kaem_jax.evaluation.features.classifier import load_classifier
from kaem_jax.files import replacing
from kaem_jax.errors import ConfigError
from kaem_jax.data.settings import DataSettings


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
    labels = {"train_labels": np.arange(15), "test_labels": np.arange(5) + 20}
    np.savez(tmp_path / "a.npz", train=images[:15], test=images[15:].astype(np.float64) / 255, **labels)
    data = load_dataset(DataSettings(name="npz", path=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(data.train, images[:15])
    assert data.held_out.dtype == np.float32
    np.testing.assert_allclose(data.held_out, images[15:] / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.train_labels(np.arange(15)), labels["train_labels"])
    np.testing.assert_array_equal(data.held_out_labels(np.arange(5)), labels["test_labels"])


def test_truth_values_are_black_and_white(tmp_path, images):
    np.savez(tmp_path / "x.npz", train=images > 127, test=images > 127)
    data = load_dataset(DataSettings(name="npz", path=str(tmp_path / "x.npz")))
    np.testing.assert_array_equal(data.train, (images > 127).astype(np.float32))
    assert data.held_out.dtype == np.float32


def test_npz_with_one_part_is_split_the_same_way_every_time(tmp_path, images):
    np.savez(tmp_path / "a.npz", images=images)
    settings = DataSettings(name="npz", path=str(tmp_path / "a.npz"), test_fraction=0.25)
    data, again = load_dataset(settings), load_dataset(settings)
    assert len(data.held_out) == 5
    assert by_bytes(data.held_out) | by_bytes(data.train) == by_bytes(images)
    assert not by_bytes(data.held_out) & by_bytes(data.train)
    np.testing.assert_array_equal(data.held_out, again.held_out)


def test_a_header_without_its_end_is_refused_by_every_reader(tmp_path, refuses):
    """One damaged byte; the check sum of the archive is only looked at after the header."""
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((90, 8, 8), np.uint8))
    content = path.read_bytes()
    assert content.count(b"}") == 1
    path.write_bytes(content.replace(b"}", b" "))
    with refuses(DataError, "a.npz", "cannot be read as an .npz file"):
        load_dataset(DataSettings(name="npz", path=str(path)))
    with refuses(RunError, "a.npz", "cannot be read as a model"):
        kaem.load(path)
    with refuses(ConfigError, "a.npz", "cannot be read as a saved classifier"):
        load_classifier(path)


@pytest.mark.parametrize("name", ["npz", "folder", "field", "text", "sms_spam"])
def test_another_seed_is_another_split(tmp_path, images, name):
    np.savez(tmp_path / "npz", images=images)
    save(tmp_path / "folder", images)
    np.savez(tmp_path / "field", y=images.astype(np.float32))
    lines = [f"message {i % 10}{i // 10} {i % 10}{i // 10}" for i in range(20)]
    (tmp_path / "text").write_text("\n".join(lines))
    (tmp_path / "sms_spam").write_text("\n".join(f"ham\t{line}" for line in lines))
    path = str(tmp_path / {"npz": "npz.npz", "field": "field.npz"}.get(name, name))

    def test_part(seed):
        return load_dataset(DataSettings(name=name, path=path, test_fraction=0.25, split_seed=seed)).held_out

    assert by_bytes(test_part(1)) == by_bytes(test_part(1))
    assert len({frozenset(by_bytes(test_part(seed))) for seed in range(4)}) > 1


def test_labels_of_npz_follow_the_split(tmp_path, images, refuses):
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20))
    data = load_dataset(DataSettings(name="npz", path=str(tmp_path / "a.npz")))
    np.testing.assert_array_equal(images[data.train_labels(np.arange(18))], data.train)
    np.testing.assert_array_equal(images[data.held_out_labels(np.arange(2))], data.held_out)
    np.savez(tmp_path / "b.npz", train=images, test=images, train_labels=np.arange(19))
    with refuses(DataError, "b.npz", "train_labels of shape (19,)", "integers of shape (20,)"):
        load_dataset(DataSettings(name="npz", path=str(tmp_path / "b.npz")))


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_images(tmp_path, images, channels):
    images = images[..., :channels]
    save(tmp_path / "split" / "train" / "cats", images[:15])
    save(tmp_path / "split" / "test", images[15:])
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "split")))
    np.testing.assert_array_equal(data.train, images[:15])
    np.testing.assert_array_equal(data.held_out, images[15:])
    save(tmp_path / "all", images)
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "all"), test_fraction=0.5))
    assert (len(data.train), len(data.held_out)) == (10, 10)


def test_folders_that_a_split_would_mix_are_refused(tmp_path, images, refuses):
    """`train` beside `val` would be two classes of one set."""
    for part, few in (("train", images[:15]), ("val", images[15:])):
        save(tmp_path / "a" / part / "cats", few)
    with refuses(DataError, "folders train and val", "rename val to test"):
        load_dataset(DataSettings(name="folder", path=str(tmp_path / "a")))


def test_classes_are_those_of_training(tmp_path, images, capsys):
    """A folder of test images alone is no class, and moves no other."""
    save(tmp_path / "train" / "n0", images[:8])
    save(tmp_path / "train" / "n1", images[8:15])
    save(tmp_path / "test" / "images", images[15:])
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path)))
    assert data.train_labels(np.arange(15)).tolist() == [0] * 8 + [1] * 7
    assert data.held_out_labels is None
    assert not data.is_labelled
    assert "test/images is no class of the training images" in capsys.readouterr().err


def test_what_nobody_sees_is_black(tmp_path):
    """Transparent pixels of two files that differ in their colours."""
    pixels = np.full((2, 4, 4, 4), 200, np.uint8)
    pixels[..., 3] = 255
    pixels[:, :2, :, 3] = 0
    pixels[1, :2, :, :3] = 77
    pixels[:, 3, :, 3] = 200  # seen, in part: as bright when it is given as in training
    for i in range(2):
        Image.fromarray(pixels[i]).save(tmp_path / f"{i}.png")
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path), test_fraction=0.5))
    expected = np.array([0, 0, 200, 200])[:, None, None] * np.ones((4, 4, 3), int)
    np.testing.assert_array_equal(data.train[0], expected)
    np.testing.assert_array_equal(data.held_out[0], expected)
    given = read_images(str(tmp_path), Layout())
    np.testing.assert_allclose(255 * given[:, 2:], np.broadcast_to(expected[2:], (2, 2, 4, 3)), atol=1e-4)
    assert np.isnan(given[:, :2]).all()


def test_a_file_that_is_a_program_is_not_run(tmp_path, images, refuses, monkeypatch):
    """Pillow hands Encapsulated PostScript to Ghostscript, whatever the ending of the file is."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    header = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_text(header)
    (tmp_path / "b.png").write_text(header)
    with refuses(DataError, "a.png", "cannot be read as an image"):
        load_dataset(DataSettings(name="folder", path=str(tmp_path)))
    with refuses(DataError, "cannot be read as an image"):
        read_upload(header.encode(), (4, 4), "crop")


def test_sixteen_bit_images_keep_their_upper_bits(tmp_path):
    folder = tmp_path / "deep"
    folder.mkdir()
    pixels = (np.arange(24).reshape(4, 6) * 2800).astype(np.uint16)
    for i in range(4):
        Image.fromarray(pixels + i).save(folder / f"{i}.png")
    data = load_dataset(DataSettings(name="folder", path=str(folder), test_fraction=0.5))
    np.testing.assert_array_equal(data.train[0, ..., 0], pixels >> 8)


def test_pixels_of_an_unknown_range_are_refused_and_odd_files_passed_over(tmp_path, images, refuses):
    for mode, kind in (("F", np.float32), ("I", np.int32)):
        (tmp_path / mode).mkdir()
        for i in range(3):
            Image.fromarray(np.full((4, 4), 70_000, kind), mode).save(tmp_path / mode / f"{i}.tiff")
        with refuses(DataError, "0.tiff", f"pixels of kind '{mode}'"):
            load_dataset(DataSettings(name="folder", path=str(tmp_path / mode)))
    folder = tmp_path / "odd"
    save(folder, images[:5])
    (folder / "._000.png").write_bytes(b"\x00\x05\x16\x07 macOS")
    os.mkfifo(folder / "pipe.png")
    Image.fromarray(images[5]).quantize(8).save(folder / "palette.png")
    data = load_dataset(DataSettings(name="folder", path=str(folder), test_fraction=0.5))
    assert len(data.train) + len(data.held_out) == 6
    assert data.data_shape == (6, 4, 3)  # a palette is colour


def test_images_of_any_size_are_cropped_or_padded_to_squares(tmp_path, rng):
    """A white square on black: cropping keeps its centre, padding keeps all of it; both keep what is known exactly."""
    folder = tmp_path / "wide"
    folder.mkdir()
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    Image.fromarray(wide).save(folder / "0.png")
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(folder / "1.jpg", quality=95)
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(folder / "2.png")
    settings = DataSettings(name="folder", path=str(folder), test_fraction=0.4, image_size=8)
    data = load_dataset(settings)
    everything = np.concatenate([data.train, data.held_out])
    assert everything.shape == (3, 8, 8, 3)
    assert any((image[1:-1, 1:-1] == 255).all() for image in everything)  # the centre of the wide one
    assert any((image == 77).all() for image in everything)
    assert max(np.ptp(image, axis=-1).mean() for image in everything) > 20  # the photograph has kept its colours
    padded = load_dataset(dataclasses.replace(settings, fit="pad"))
    everything = np.concatenate([padded.train, padded.held_out])
    white = min(float(image.mean()) for image in everything) / 255
    assert 0.1 < white < 0.15  # a ninth of the square; its height is rounded to 3 of 8 pixels
    grey = load_dataset(dataclasses.replace(settings, channels="grey"))
    assert grey.data_shape == (8, 8, 1)
    with refuses_size(folder):
        load_dataset(dataclasses.replace(settings, image_size=0))


def refuses_size(folder):
    return pytest.raises(DataError, match=f"{folder}/1.jpg has shape .*set data.image_size")


def test_sub_folders_are_classes(tmp_path, images):
    for i, name in enumerate(("cats", "dogs", "owls")):
        save(tmp_path / "all" / name, images[5 * i : 5 * i + 5])
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "all"), test_fraction=0.4))
    for part, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        for image, label in zip(part, labels(np.arange(len(part))), strict=True):
            assert image.tobytes() in by_bytes(images[5 * label : 5 * label + 5])


def test_a_class_has_one_number_in_both_parts(tmp_path, images):
    """Owls are number 2 in the test part, too, where there are no dogs."""
    for i, name in enumerate(("train/cats", "train/dogs", "train/owls", "test/cats", "test/owls")):
        save(tmp_path / name, images[4 * i : 4 * i + 4])
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path)))
    assert data.train_labels(np.arange(12)).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.held_out_labels(np.arange(8)).tolist() == [0] * 4 + [2] * 4


def test_a_palette_is_read_in_its_colours(tmp_path):
    """GIF and PNG may hold numbers of colours: what they stand for counts."""
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6) % 3
    colours = np.array([[200, 10, 0], [0, 106, 10], [10, 60, 250]], np.uint8)
    picture = Image.new("P", (6, 4))
    picture.putdata(numbers.ravel().tolist())
    picture.putpalette(colours.ravel().tolist())
    (tmp_path / "all").mkdir()
    for i in range(3):
        picture.save(tmp_path / "all" / f"{i}.png")
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "all")))
    np.testing.assert_array_equal(data.train[0], colours[numbers])


def test_data_that_differ_after_their_first_rows_have_another_fingerprint():
    """Files sorted by class may agree in thousands of rows."""
    images = np.zeros((1000, 2, 2), np.float32)
    other = np.where(np.arange(1000)[:, None, None] < 500, images, 1)
    fingerprints = {Dataset(values, values[:1]).fingerprint() for values in (images, other, images[:999])}
    assert len(fingerprints) == 3
    assert Dataset(images.copy(), images[:1]).fingerprint() == Dataset(images, images[:1]).fingerprint()
    of_parts = {Dataset(images, held_out).held_out_fingerprint() for held_out in (images[:1], images[:1] + 1)}
    assert len(of_parts) == 2


def test_values_outside_the_unit_interval_are_black_or_white():
    """As outputs without a bound may be; a byte that overflows would show them the other way round."""
    shown = to_pixels(np.array([[[-0.2, 0.0, 0.5, 1.0, 1.3]]]))
    assert shown.dtype == np.uint8
    assert shown.ravel().tolist() == [0, 0, 128, 255, 255]


def test_digits_are_scikit_learns_in_its_split():
    bunch = datasets.load_digits()
    rows, test_rows = model_selection.train_test_split(np.arange(1797), test_size=360, random_state=0)
    data = load_dataset(DataSettings())
    parts = (data.train, data.train_labels, rows), (data.held_out, data.held_out_labels, test_rows)
    for part, labels, chosen in parts:
        np.testing.assert_allclose(16 * part, bunch.images[chosen], rtol=1e-6)
        np.testing.assert_array_equal(labels(np.arange(len(chosen))), bunch.target[chosen])
    settings = DataSettings(held_out="validation", validation_size=300)
    again = load_dataset(settings)  # as another process asks
    np.testing.assert_array_equal(load_dataset(settings).held_out, again.held_out)


def test_a_validation_split_leaves_the_test_split_alone():
    data = load_dataset(DataSettings())
    chosen = load_dataset(DataSettings(held_out="validation", validation_size=300))
    assert (len(chosen.train), len(chosen.held_out)) == (1137, 300)
    assert by_bytes(chosen.train) | by_bytes(chosen.held_out) == by_bytes(data.train)
    assert not by_bytes(chosen.train) & by_bytes(chosen.held_out)
    few = load_dataset(DataSettings(num_train=100, num_held_out=7))
    np.testing.assert_array_equal(few.train, data.train[:100])
    np.testing.assert_array_equal(few.held_out, data.held_out[:7])


def test_refusals(refuses, tmp_path, images):
    def refused(*parts, name="npz", **settings):
        with refuses(DataError, *parts):
            load_dataset(DataSettings(name=name, **settings))

    missing = str(tmp_path / "none.npz")
    refused("data.path=", "none.npz", "No such file", path=missing)
    refused("data.path=", "No such file", "folder of images", name="folder", path=missing)
    refused("no file", path=str(tmp_path))
    refused("~nosuch", "cannot be opened", path="~nosuch/x.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    refused("pipe.npz", "no file", path=str(tmp_path / "pipe.npz"))  # opening it would wait for ever
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    refused("broken.npz", "cannot be read", path=str(tmp_path / "broken.npz"))
    np.savez(tmp_path / "whole.npz", images=images)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:900])
    refused("cut.npz", "cannot be read", path=str(tmp_path / "cut.npz"))
    for file, arrays, parts in (
        ("names", {"pictures": images}, ["['pictures']", "train and test, or images"]),
        ("range", {"train": images * 1.0, "test": images}, ["float64", "[0, 1]"]),
        ("ints", {"train": images.astype(np.int64), "test": images}, ["int64", "uint8"]),
        ("bits", {"train": (images > 99).astype(np.uint8), "test": images}, ["uint8 values 0 and 1", "bool"]),
        ("empty", {"train": images[:0], "test": images}, ["(0, 6, 4, 3)", "N > 0"]),
        ("flat", {"train": images[:, :0], "test": images}, ["(20, 0, 4, 3)", "sides above 0"]),
        ("one", {"images": images[:1]}, ["one example cannot be split"]),
        ("labels", {"images": images, "labels": np.full(20, 2**62)}, ["from 0 to 2147483647"]),
        ("negative", {"images": images, "labels": np.full(20, -1)}, ["from 0 to 2147483647"]),
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
    for name, damage in (
        ("locked", lambda info: setattr(info, "flag_bits", info.flag_bits | 1)),
        ("claims", None),
    ):
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            buffer = io.BytesIO()
            header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 4) if damage is None else (2, 2)}
            np.lib.format.write_array_header_1_0(buffer, header)
            archive.writestr("images.npy", buffer.getvalue() + bytes(4))
            if damage:
                damage(archive.infolist()[0])
        refused(f"{name}.npz", "encrypted" if damage else "claims shape (1000000000, 4)", path=str(path))
    (tmp_path / "mixed" / "last.png").write_bytes(b"no image")
    refused("last.png", "cannot be read as an image", name="folder", path=str(tmp_path / "mixed"))
    refused("data.validation_size=1437", "below 1437", name="digits", held_out="validation", validation_size=1437)


def test_a_part_of_data_that_are_sorted_by_class_has_all_classes(tmp_path):
    """The first rows of users' files may be of one class; all of them keep their order."""
    images = np.arange(400, dtype=np.float32).reshape(400, 1) / 400
    labels = np.repeat([0, 1, 2, 3], 100)
    np.savez(tmp_path / "a.npz", train=images, train_labels=labels, test=images, test_labels=labels)
    whole = load_dataset(DataSettings(name="npz", path=str(tmp_path / "a.npz")))
    few = load_dataset(DataSettings(name="npz", path=str(tmp_path / "a.npz"), num_train=40, num_held_out=40))
    np.testing.assert_array_equal(whole.held_out, images)
    np.testing.assert_array_equal(few.held_out, images[some_rows(DataSettings(name="npz", path="a.npz"), 400, 40)])
    np.testing.assert_array_equal(some_rows(DataSettings(), 400, 40), np.arange(40))  # digits are mixed already
    wine = load_dataset(DataSettings(name="wine", num_train=40, num_held_out=10))
    assert set(wine.train_labels(np.arange(40)).tolist()) == {0, 1, 2}
    assert len(set(wine.held_out_labels(np.arange(10)).tolist())) > 1
    for data in (few.train, few.held_out):
        assert len(np.unique(data)) == 40
    for found, rows in ((few.train_labels, few.train), (few.held_out_labels, few.held_out)):
        np.testing.assert_array_equal(found(np.arange(40)), np.asarray(rows)[:, 0] * 400 // 100)
        assert set(found(np.arange(40)).tolist()) == {0, 1, 2, 3}


def test_parts_of_a_folder_in_capitals_links_and_hidden_folders(tmp_path, images):
    """GTSRB's `Train` and `Test`; classes that lie elsewhere; thumbnails that no user sees."""
    for part, rows in (("Train", slice(0, 15)), ("Test", slice(15, 20))):
        save(tmp_path / "gtsrb" / part / "0", images[rows][::2])
        save(tmp_path / "gtsrb" / part / "1", images[rows][1::2])
    first = min((tmp_path / "gtsrb" / "Train" / "0").iterdir())
    first.rename(first.with_suffix(".PNG"))  # as cameras write it
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "gtsrb")))
    assert (len(data.train), len(data.held_out)) == (15, 5)
    assert by_bytes(data.held_out) == by_bytes(images[15:])
    save(tmp_path / "elsewhere", images[:10])
    save(tmp_path / "pets" / "dogs", images[10:])
    save(tmp_path / "pets" / ".thumbnails", images[:3] // 2)
    (tmp_path / "pets" / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets" / "dogs" / "again").symlink_to(tmp_path / "pets")  # a circle
    data = load_dataset(DataSettings(name="folder", path=str(tmp_path / "pets"), test_fraction=0.1))
    assert by_bytes(data.train) | by_bytes(data.held_out) == by_bytes(images)
    assert len(data.train) + len(data.held_out) == 20
    assert set(data.train_labels(np.arange(18)).tolist()) == {0, 1}
    (tmp_path / "pets" / "a_first_name").symlink_to(tmp_path / "pets" / "dogs")  # the same images once more
    again = load_dataset(DataSettings(name="folder", path=str(tmp_path / "pets"), test_fraction=0.1))
    np.testing.assert_array_equal(again.train, data.train)
    assert set(again.train_labels(np.arange(18)).tolist()) == {0, 1}
    (tmp_path / "pets" / "cats").unlink()
    save(tmp_path / "pets" / "birds" / "small", images[:3])
    (tmp_path / "pets" / "birds" / "more").symlink_to(tmp_path / "pets" / "dogs")  # which has its own name
    linked = load_dataset(DataSettings(name="folder", path=str(tmp_path / "pets"), test_fraction=0.1))
    labels = linked.train_labels(np.arange(len(linked.train)))
    assert by_bytes(linked.train[labels == 0]) <= by_bytes(images[:3])
    assert by_bytes(linked.train[labels == 1]) <= by_bytes(images[10:])


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A machine that loses its power would otherwise have an empty file in place of the old one."""
    order, names = [], {}
    rename, opened = pathlib.Path.replace, os.open

    def named(path, *flags, **options):
        handle = opened(path, *flags, **options)
        names[handle] = os.fspath(path)
        return handle

    monkeypatch.setattr(os, "open", named)
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(names[handle]))
    monkeypatch.setattr(pathlib.Path, "replace", lambda self, to: order.append("named") or rename(self, to))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == [str(temporary), "named", str(tmp_path)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EINVAL])
def test_a_disk_that_is_full_only_at_the_end_keeps_the_old_file(tmp_path, monkeypatch, code):
    """Network file systems and quotas say so when the file is flushed; others cannot flush, and say that."""

    def flush(handle):
        raise OSError(code, "flushed")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, "fsync", flush)
    is_full = code == errno.ENOSPC
    raised = pytest.raises(OSError, match="flushed") if is_full else contextlib.nullcontext()
    with raised, replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a.txt").read_text() == ("old" if is_full else "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_two_processes_may_write_one_file(tmp_path, monkeypatch):
    """Each has its own temporary file: the later one wins, and none sees half of the other's."""
    path = tmp_path / "a.txt"
    with replacing(path) as ours:
        ours.write_text("ours")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with replacing(path) as theirs:
            theirs.write_text("theirs")
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
