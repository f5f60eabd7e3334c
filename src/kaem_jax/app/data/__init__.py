"""Data sets, where they come from, and the order in which a run visits them."""

from kaem_jax.app.data.config import DataSettings, evaluated_rows
from kaem_jax.app.data.dataset import Dataset, are_pictures, to_pixels
from kaem_jax.app.data.feed import Feed
from kaem_jax.app.data.forms import PIXELS, Field, Form, Pixels, Table, Text, form_from_dict
from kaem_jax.app.data.loading import load_dataset
from kaem_jax.app.data.new_data import read_given, read_mask
from kaem_jax.app.data.table import read_table, write_table

__all__ = [
    "PIXELS", "DataSettings", "Dataset", "Feed", "Field", "Form", "Pixels", "Table", "Text", "are_pictures",
    "evaluated_rows", "form_from_dict", "load_dataset", "read_given", "read_mask", "read_table",
    "to_pixels", "write_table",
]  # fmt: skip
