"""Recordings in: one importer a file, behind one registry."""

from . import common as _common
from . import tabular as _tabular
from .importing import detect, import_files, open_trace
from .registry import Found, Importer, Options, Rows, importer, importers

__all__ = [
    "Found",
    "Importer",
    "Options",
    "Rows",
    "detect",
    "import_files",
    "importer",
    "importers",
    "open_trace",
]

_ = (_common, _tabular)
