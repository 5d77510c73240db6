"""A user's own tables: CSV in its dialects and Parquet, one file or a folder of them."""

from resilinet_jax.datasets.tables.files import unpacked as unpacked
from resilinet_jax.datasets.tables.reading import load_tables as load_tables
