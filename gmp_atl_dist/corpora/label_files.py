"""Label files inside a corpus: find one by its name, and read some of its columns, counted twice."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from gmp_atl_dist.corpora.delimited import column_names, read_columns
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.store.filesystem import Store


def find_file(paths: Sequence[str], name: str) -> str | None:
    """The path of the file with this name, the least deep one; None if there is none."""
    found = [path for path in paths if path.rpartition("/")[2] == name]
    return min(found, key=lambda path: (path.count("/"), path), default=None)


def read_rows(
    source: Store, path: str, columns: Sequence[str], delimiter: str = ","
) -> list[dict[str, str]]:
    """The rows of a text table, all values as text without surrounding blanks.

    Raises:
        CorpusError: the file is damaged, is not UTF-8, or lacks a column.
    """
    data = source.read(path)
    where = f"{source.uri}/{path}"
    try:
        present = column_names(data, delimiter)
        missing = [name for name in columns if name not in present]
        if missing:
            raise CorpusError(
                f"{where}: lacks the columns {', '.join(missing)}; it has {', '.join(present)}. Use the "
                f"file of the release"
            )
        table = read_columns(data, delimiter, columns, where)
    except pa.ArrowException as e:
        raise CorpusError(
            f"{where}: cannot be read ({e}); use the file of the release, as UTF-8"
        ) from e
    rows = table.select(list(columns)).to_pylist()
    return [{name: (text or "").strip() for name, text in row.items()} for row in rows]
