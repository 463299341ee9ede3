"""Whether a text table is UTF-8, and what it is otherwise.

Text is never decoded by the locale of a machine: the same table must give the same corpus everywhere. So a
table in another encoding is refused, with the place and the command that converts it.
"""

from __future__ import annotations

import codecs

from gmp_atl_dist.errors import CorpusError

_BLOCK = 1 << 20
_SHOWN = 24
_OTHER_FORMATS = (
    (b"\x1f\x8b", "gzip data", "decompress it (gunzip)"),
    (b"PK\x03\x04", "a zip archive, as .xlsx files are", "export it as UTF-8 CSV"),
    (b"PAR1", "a Parquet file", "name it .parquet"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "convert it (iconv -f UTF-16 -t UTF-8)"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "convert it (iconv -f UTF-16 -t UTF-8)"),
)


def refuse_other_encodings(data: bytes, name: str) -> None:
    """Refuse a text table that is not UTF-8.

    Args:
        data: the file.
        name: what errors call the table.

    Raises:
        CorpusError: names the table, line and byte, and what to do.
    """
    for start, what, remedy in _OTHER_FORMATS:
        if data.startswith(start):
            raise CorpusError(f"{name}: cannot be read (it is {what}, not UTF-8 text); {remedy}")
    # Text has no zero bytes. UTF-16 without a mark has them, and is UTF-8 as far as decoding goes.
    zero = data.find(0)
    if zero >= 0:
        raise CorpusError(
            f"{name}: cannot be read (line {_line(data, zero)}, byte {zero + 1} is a zero byte, so it is "
            f"not UTF-8 text); write it again as UTF-8: if it is UTF-16, by iconv -f UTF-16LE -t UTF-8"
        )
    bad = _first_bad_byte(data)
    if bad is not None:
        line = _line(data, bad)
        start = data.rfind(b"\n", 0, bad) + 1
        shown = data[max(start, bad - _SHOWN) : bad + _SHOWN].splitlines()[0]
        raise CorpusError(
            f"{name}: cannot be read (line {line}, byte {bad + 1} is not UTF-8: {data[bad : bad + 1]!r} in "
            f"{shown!r}); write it again as UTF-8: if it is Latin-1 or Windows-1252, by "
            f"iconv -f WINDOWS-1252 -t UTF-8"
        )


def _first_bad_byte(data: bytes) -> int | None:
    """Position of the first byte that is not UTF-8. Decodes in blocks, to hold no second copy."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for begin in range(0, len(data), _BLOCK):
        pending = len(decoder.getstate()[0])
        final = begin + _BLOCK >= len(data)
        try:
            decoder.decode(data[begin : begin + _BLOCK], final)
        except UnicodeDecodeError as e:
            return begin - pending + e.start
    return None


def _line(data: bytes, position: int) -> int:
    """The number of the line, from 1, of a byte."""
    return data.count(b"\n", 0, position) + 1
