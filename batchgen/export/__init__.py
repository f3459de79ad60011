"""What a dataset says of each picture, and how: names, columns, and the text of each format. Opens no file.

Conventions: ImageFolder and Parquet as Hugging Face `datasets` reads them, WebDataset's tar shards, RFC 4180 for CSV.
"""

from batchgen.export.columns import Column, Row, Survey, rows
from batchgen.export.names import sample_key
from batchgen.export.parts import Form, Part, split
from batchgen.export.texts import CSV_BEGINS, csv_header, csv_line, is_formula, json_line, members, sample_json, tar_end

__all__ = [
    "CSV_BEGINS",
    "Column",
    "Form",
    "Part",
    "Row",
    "Survey",
    "csv_header",
    "csv_line",
    "is_formula",
    "json_line",
    "members",
    "rows",
    "sample_json",
    "sample_key",
    "split",
    "tar_end",
]
