"""Data that a user gives to a command are read as those of training; masks."""

import dataclasses

import numpy as np
from PIL import Image

from kaem_jax.app.data import PIXELS, DataSettings, Field, Table, Text, load_dataset
from kaem_jax.app.data.new_data import read_given, read_mask
from kaem_jax.app.data.table import write_table
from kaem_jax.errors import DataError
from kaem_jax.tables.column import Column
from tests.browser import png

PLAIN = DataSettings()


def test_given_tables_may_lack_columns_and_have_new_categories(tmp_path, capsys, refuses):
    form = Table((Column("height"), Column("colour", ("blue", "green", "red")), Column("count", (), 1.0, 2.0)))

    def given(table):
        write_table(tmp_path / "new.csv", table)
        return read_given(str(tmp_path / "new.csv"), form, (5,), PLAIN)

    x = given({"colour": ["blue", "violet", None], "count": [1.0, None, 3.0]})
    said = capsys.readouterr().err
    assert "new.csv' has no column 'height': missing in every row\n" in said
    assert "1 cells (e.g. 'violet')" in said
    nan = np.nan
    np.testing.assert_array_equal(x, [[nan, 1, 0, 0, 0], [nan] * 5, [nan, nan, nan, nan, 1]])
    with refuses(DataError, "--data=", "it has columns weight; wanted: height, colour, count"):
        given({"weight": [1.0]})
    with refuses(DataError, "--data", "'count' had numbers in training", "'few'"):
        given({"count": ["few", "many"]})


def test_given_texts_keep_the_numbers_of_their_lines(tmp_path, capsys):
    form, path = Text("word", 3, ("a", "b")), tmp_path / "t.txt"
    path.write_text("a a a\n\na b a b\n ham\ta\nb c\n", encoding="utf-8-sig")  # as editors mark it
    for name, fourth in (("text", "<unk> a"), ("sms_spam", "a")):
        x = read_given(str(path), form, (3,), DataSettings(name=name, path="x"))
        assert form.decode(x) == ["a a a", "", "a b a", fourth, "b <unk>"]
    assert "1 texts are longer than data.length=3, and cut there" in capsys.readouterr().err


def test_given_fields_are_read_as_the_file_of_training(tmp_path, rng):
    """The arrays of training in their order; else one with a usual name, such as `test` of a file with both parts."""
    x, y = rng.normal(size=(20, 4, 6)) > 0, rng.integers(0, 200, (20, 4, 6)).astype(np.uint8)
    np.savez(tmp_path / "f.npz", x=x, y=y)
    for columns in ((), ("y",), ("x",), ("x", "y"), ("y", "x")):
        settings = DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=columns)
        data = load_dataset(settings)
        truth = np.stack([{"x": x, "y": y}[name] for name in columns or ("y",)], axis=-1)
        again = np.concatenate([data.form.decode(data.train), data.form.decode(data.held_out)])
        np.testing.assert_allclose(np.sort(again, axis=0), np.sort(truth, axis=0), atol=1e-4)
        given = read_given(settings.path, data.form, data.data_shape, settings)
        np.testing.assert_allclose(data.form.decode(given), truth, atol=1e-4)
    parts = {"test": rng.normal(8, 1, (3, 2, 2)), "train": rng.normal(3, 2, (9, 2, 2))}
    np.savez(tmp_path / "both.npz", **parts)
    data = load_dataset(DataSettings(name="field", path=str(tmp_path / "both.npz")))
    given = read_given(str(tmp_path / "both.npz"), data.form, (2, 2, 1), PLAIN)
    for found, name in ((data.train, "train"), (data.held_out, "test"), (given, "test")):
        np.testing.assert_allclose(data.form.decode(found)[..., 0], parts[name], rtol=1e-5)
    np.savez(tmp_path / "gap.npz", samples=[[[1.0, np.nan]]])
    given = read_given(str(tmp_path / "gap.npz"), Field((5.0,), (2.0,)), (1, 2, 1), PLAIN)
    np.testing.assert_array_equal(given, [[[[-2], [np.nan]]]])


def test_arrays_that_are_no_fields_are_refused(tmp_path, refuses):
    for said, columns, arrays in (
        ("finite numbers", (), {"y": np.full((3, 2, 2), np.nan)}),
        ("finite numbers", (), {"y": np.ones((3, 2, 2)) * 1j}),  # else its imaginary part would be lost
        ("dimension", (), {"train": np.ones((3, 2, 2, 2)), "test": np.ones((3, 2, 2, 1))}),
        ("wanted: z (data.columns)", ("z",), {"y": np.ones((3, 2))}),
        ("wanted: train and test, or one of fields, y", (), {"pictures": np.ones((3, 2))}),
    ):
        np.savez(tmp_path / "f.npz", **arrays)
        with refuses(DataError, "data.path=", "f.npz", said):
            load_dataset(DataSettings(name="field", path=str(tmp_path / "f.npz"), columns=columns))


def test_images_are_shares_of_255_with_and_without_an_axis_of_channels(tmp_path, rng, refuses):
    pixels = rng.integers(0, 256, (6, 5), dtype=np.uint8)
    (tmp_path / "folder").mkdir()
    for file in ("a.png", "folder/b.png"):
        (tmp_path / file).write_bytes(png(pixels))
    np.savez(tmp_path / "a.npz", images=pixels[None], y=np.array([3]), fields=np.zeros((1, 2)))
    np.savez(tmp_path / "b.npz", any_name=pixels[None, ..., None] / 255)
    np.savez(tmp_path / "both.npz", train=np.zeros((4, 6, 5)), test=pixels[None] / 255)  # a file of training
    for name in ("a.png", "a.npz", "b.npz", "both.npz", "folder"):
        for shape in ((6, 5), (6, 5, 1)):
            x = read_given(str(tmp_path / name), PIXELS, shape, PLAIN)
            assert (x.shape, x.dtype) == ((1, *shape), np.float32)
            np.testing.assert_allclose(x.reshape(6, 5), pixels / 255, rtol=1e-6)
    for images, said in (
        (np.arange(30).reshape(1, 6, 5) % 17, "int64 values; wanted: uint8, or floats in [0, 1]"),
        (np.full((1, 6, 5), -0.1, np.float32), "float32 values"),
        (np.zeros((2, 5, 6)), "shape (5, 6), the model takes (6, 5)"),
    ):
        np.savez(tmp_path / "x.npz", images=images)
        with refuses(DataError, "--data", said):
            read_given(str(tmp_path / "x.npz"), PIXELS, (6, 5), PLAIN)


def test_photographs_are_turned_upright_and_scaled_as_in_training(tmp_path, rng):
    """A camera that was held sideways writes rows as columns, and says so; its transparent pixels turn with it."""
    upright = np.repeat(np.repeat(rng.integers(0, 256, (3, 3, 4), dtype=np.uint8), 8, axis=0), 8, axis=1)
    upright[..., 3] = 255
    upright[:8, 16:, 3] = 0
    hidden, orientation = upright[..., 3] == 0, Image.Exif()
    orientation[0x0112] = 8  # to be turned by 90 degrees against the clock
    (tmp_path / "a.png").write_bytes(png(np.rot90(upright, -1).copy(), exif=orientation))
    (tmp_path / "b.png").write_bytes(png(upright))
    for image in read_given(str(tmp_path), PIXELS, (24, 24, 3), PLAIN):
        np.testing.assert_array_equal(np.isnan(image), np.stack([hidden] * 3, axis=-1))
        np.testing.assert_allclose(image[~hidden], upright[..., :3][~hidden] / 255, rtol=1e-6)
    small = DataSettings(name="folder", path=str(tmp_path), image_size=3, test_fraction=0.5)
    turned, straight = read_given(str(tmp_path), PIXELS, (3, 3, 3), small)
    np.testing.assert_array_equal(np.isnan(straight[..., 0]), hidden[4::8, 4::8])
    np.testing.assert_allclose(turned, straight, atol=0.01)
    data = load_dataset(small)
    np.testing.assert_array_equal(data.train, data.held_out)
    (tmp_path / "b.png").write_bytes(png(upright[:16]))
    padded = dataclasses.replace(small, image_size=24, fit="pad")
    (wide,) = read_given(str(tmp_path / "b.png"), PIXELS, (24, 24, 3), padded)
    np.testing.assert_array_equal(wide[[0, 1, -1]], 0)  # margins are black, as in training, and not missing
    assert np.isnan(wide).any()


def test_masks(tmp_path, refuses):
    """Not 0 is missing; a mask may be painted on a transparent layer, and leaves out no axis but that of channels."""
    painted = np.full((6, 5, 4), 255, np.uint8)
    painted[[0, 1, 4, 5], :, 3] = 0
    mask = painted[..., 3] > 0
    (tmp_path / "layer.png").write_bytes(png(painted))
    (tmp_path / "mask.png").write_bytes(png(painted[..., 3]))
    np.savez(tmp_path / "mask.npz", mask=mask, other=painted)
    np.savez(tmp_path / "one.npz", any_name=mask[..., None])
    for name in ("layer.png", "mask.png", "mask.npz", "one.npz"):
        for shape in ((6, 5), (6, 5, 1), (6, 5, 3)):
            found = read_mask(str(tmp_path / name), shape)
            np.testing.assert_array_equal(found, np.broadcast_to(mask.reshape(6, 5, *[1] * (len(shape) - 2)), shape))
    for wrong in (np.arange(8) < 3, (np.arange(8) < 3)[:, None]):
        np.savez(tmp_path / "wrong.npz", mask=wrong)
        with refuses(DataError, "--mask", f"has shape {wrong.shape}, the data have (8, 8)"):
            read_mask(str(tmp_path / "wrong.npz"), (8, 8))
    with refuses(DataError, "--mask=", "none.png", "cannot be read"):
        read_mask(str(tmp_path / "none.png"), (6, 5))
