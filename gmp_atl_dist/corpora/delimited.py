"""Tables as text: which character separates the columns, and whether every row was read.

A wrong guess could lose rows or shift columns without a word. So the delimiter is the one by which the
header has the columns that are needed, and rows are counted in a second way after they were read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.csv as pacsv

from gmp_atl_dist.errors import ConfigError, CorpusError

DELIMITERS: Mapping[str, str] = {"comma": ",", "semicolon": ";", "tab": "\t"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def find_delimiter(data: bytes, needed: Collection[str], chosen: str, name: str) -> str:
    """The character that separates the columns.

    Args:
        data: the file.
        needed: columns that the header must have.
        chosen: ``corpus.delimiter``.
        name: what errors call the table.

    Raises:
        ConfigError: the header can be read in two ways.
        CorpusError: the header is not UTF-8. ``encoding.py`` checks the whole table before.
    """
    if chosen in DELIMITERS:
        return DELIMITERS[chosen]
    header = _header(data, name)
    columns = {word: _split(header, mark) for word, mark in DELIMITERS.items()}
    several = {word for word, names in columns.items() if len(names) > 1}
    found = {word: len(set(needed) & set(columns[word])) for word in several}
    best = [word for word in several if found[word] == max(found.values())]
    if not several:
        return DELIMITERS["comma"]
    if len(best) > 1:
        raise ConfigError(
            f"{name}: its header can be split by {' and by '.join(sorted(best))}: {header!r}; set "
            f"corpus.delimiter to the one that is meant"
        )
    return DELIMITERS[best[0]]


def column_names(data: bytes, delimiter: str) -> list[str]:
    """The names in the header."""
    options = pacsv.ParseOptions(delimiter=delimiter)
    return pacsv.open_csv(io.BytesIO(data), parse_options=options).schema.names


def read_columns(data: bytes, delimiter: str, columns: Collection[str], name: str) -> pa.Table:
    """Some columns of a table, all values as text.

    Raises:
        CorpusError: a quotation mark swallows rows.
        pa.ArrowException: the table is damaged otherwise.
    """
    wanted = sorted(columns)
    table = pacsv.read_csv(
        io.BytesIO(data),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
        convert_options=pacsv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
        ),
    )
    lines = sum(1 for line in io.BytesIO(data) if line.strip(b"\r\n"))
    if lines - 1 != table.num_rows:
        _check_rows(data, delimiter, table.num_rows, name)
    return table


def _check_rows(data: bytes, delimiter: str, num_rows: int, name: str) -> None:
    """Some values hold line breaks. Refuse the table unless they plainly are parts of values.

    Raises:
        CorpusError: a quotation mark is not closed, or a value looks like several rows.
    """
    text = data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", errors="replace")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    mend = "close or remove the quotation mark there, or write the table as Parquet"
    counted, first, width = -1, 1, 0
    try:
        for record in reader:
            counted += bool(record)
            width = width or len(record)
            for column, value in enumerate(record):
                if _holds_rows(value, column, width, delimiter):
                    raise CorpusError(
                        f"{name}: lines {first} to {reader.line_num} are one row, because a quoted "
                        f"value reaches over several lines, and these look like rows of their own; "
                        f"{mend}"
                    )
            first = reader.line_num + 1
    except csv.Error as e:
        raise CorpusError(
            f"{name}: in the row of line {first}, a quotation mark is not closed, or stands inside a "
            f"value ({e}), so that following rows could be lost; {mend}"
        ) from e
    if counted != num_rows:
        raise CorpusError(
            f"{name}: has {num_rows} rows in one way of reading it and {counted} in another; write it "
            f"again as UTF-8 without line breaks in values, or as Parquet"
        )


def _holds_rows(value: str, column: int, width: int, delimiter: str) -> bool:
    """Whether a value over several lines is what a stray quotation mark makes of rows.

    Its line breaks are then ends of rows: each line has as many delimiters as it would have as a row, or as
    the end of one from this column on, or the beginning of one up to it.
    """
    marks = [line.count(delimiter) for line in value.splitlines() if line.strip()]
    if "\n" not in value and "\r" not in value:
        return False
    if any(count >= width - 1 for count in marks[1:]):
        return True
    return len(marks) > 1 and (marks[0], marks[-1]) == (width - 1 - column, column)


def _header(data: bytes, name: str) -> str:
    body = data.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\r\n")
    try:
        return body.splitlines()[0].decode("utf-8") if body else ""
    except UnicodeDecodeError as e:
        raise CorpusError(
            f"{name}: cannot be read (its header is not UTF-8 text); write it again as UTF-8"
        ) from e


def _split(header: str, delimiter: str) -> list[str]:
    return next(csv.reader([header], delimiter=delimiter), [])
