"""Data sets, where they come from, and the order in which a run visits them."""

from kaem_jax.data.dataset import (
    Dataset,
    are_pictures,
    as_seen,
    is_image,
    refuse_bytes_of_bits,
    to_pixels,
    to_unit_interval,
)
from kaem_jax.data.feed import Batch, Feed, batch_indices
from kaem_jax.data.loading import load_dataset
from kaem_jax.data.new_data import fit_of, read_given, read_mask
from kaem_jax.data.preprocessing import PIXELS, Column, Field, Form, Pixels, Table, Text, form_from_dict
from kaem_jax.data.settings import DataSettings
from kaem_jax.data.splits import judged_rows
from kaem_jax.data.table import read_table, write_table

__all__ = [
    "PIXELS", "Batch", "Column", "DataSettings", "Dataset", "Feed", "Field", "Form", "Pixels", "Table", "Text",
    "are_pictures", "as_seen", "batch_indices", "fit_of", "form_from_dict", "is_image", "judged_rows",
    "load_dataset", "read_given", "read_mask", "read_table", "refuse_bytes_of_bits", "to_pixels", "to_unit_interval",
    "write_table",
]  # fmt: skip
