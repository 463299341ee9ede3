"""What the header of a recording says about its length, compared with the bytes that are there.

libsndfile takes a file that was cut short as a whole recording, whatever the container. So the sizes in
the header are compared with the size of the file before it is decoded. A writer that cannot seek back,
such as a pipe, leaves placeholders instead of sizes. They say nothing, and the recording ends with the file.

Checked: WAV (RIFF, RIFX, RF64, BW64), W64, AIFF and AIFC, IFF 8SVX, AU, NIST SPHERE, Ogg. libsndfile itself
refuses a cut FLAC or CAF. The other containers that it reads do not say how long they are, or are rare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gmp_atl_dist.errors import CorpusError

Order: TypeAlias = Literal["big", "little"]

# Writers disagree on whether a size counts the fields before it.
_SLOP_BYTES = 8
# Writers that cannot seek back leave a size near a power of two, or a round number that no file has.
_PLACEHOLDER_MIN = 0x7FFF0000
_ROUND_PLACEHOLDER = range(2_000_000_000, 2_000_000_129)
_PLACEHOLDER_64 = 1 << 62
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_SPHERE_TYPES = frozenset({"pcm", "ulaw", "mu-law", "alaw"})
_MOST_DIGITS = 18
_GSM610 = 0x31
_GSM_BLOCK_BYTES, _GSM_BLOCK_SAMPLES = 65, 320


@dataclass(frozen=True)
class _Chunk:
    """A chunk of a file: where its size field and its data begin, and the bytes of data that it declares."""

    name: bytes
    size_at: int
    start: int
    size: int


def checked(data: bytes) -> bytes:
    """The bytes to decode: ``data``, or a copy in which placeholder sizes are replaced by the true ones.

    Args:
        data: the whole file.

    Raises:
        CorpusError: the file is shorter than its header says. Names both sizes.
    """
    magic = data[:4]
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _checked_wav(data)
    if magic == b"FORM":
        _check_form(data)
    elif data[:16] == _W64_RIFF:
        _check_w64(data)
    elif magic in (b".snd", b"dns."):
        _check_au(data)
    elif data[:8] == b"NIST_1A\n":
        _check_sphere(data)
    elif magic == b"OggS":
        _check_ogg(data)
    return data


def gsm_frames(data: bytes) -> int | None:
    """Samples of a WAV with GSM 6.10; None for any other file.

    libsndfile takes the padding byte behind the last block for a block, and returns 320 samples too many.
    """
    chunks = {c.name: c for c in _chunks(data, 12, "little")} if data[:4] == b"RIFF" else {}
    form, sound, fact = (chunks.get(name) for name in (b"fmt ", b"data", b"fact"))
    if form is None or sound is None or _number(data, form.start, 2) != _GSM610:
        return None
    held = min(sound.size, len(data) - sound.start)
    frames = held // _GSM_BLOCK_BYTES * _GSM_BLOCK_SAMPLES
    told = _number(data, fact.start, 4) if fact is not None else 0
    return min(frames, told) if told else frames


def _checked_wav(data: bytes) -> bytes:
    order: Order = "big" if data[:4] == b"RIFX" else "little"
    chunks = {c.name: c for c in _chunks(data, 12, order)}
    sound, sizes = chunks.get(b"data"), chunks.get(b"ds64")
    declared_at, width = (4, 4) if sizes is None else (sizes.start, 8)
    declared = _number(data, declared_at, width, order)
    end_known = declared > 0 and not _is_placeholder(declared, width)
    if end_known:
        _refuse_cut(data, declared + 8, declared)
    if sound is None:
        return data
    size, size_at, width = sound.size, sound.size_at, 4
    if sizes is not None and size == 0xFFFFFFFF:
        size, size_at, width = _number(data, sizes.start + 8, 8), sizes.start + 8, 8
    there = len(data) - sound.start
    # Zero is a placeholder where bytes follow although the file ends here by its header.
    ends_here = not end_known or declared + 8 <= sound.start + _SLOP_BYTES
    unknown = _is_placeholder(size, width) or (size == 0 and there > _SLOP_BYTES and ends_here)
    if not unknown:
        # Some writers count the header as well.
        _refuse_cut(data, sound.start + size - min(sound.start, 128), size)
        return data
    # libsndfile itself reads to the end of the file where a 32-bit size is too large.
    return data if size and width == 4 else _with_size(data, size_at, there, width, order)


def _with_size(data: bytes, at: int, size: int, width: int, order: Order) -> bytes:
    repaired = bytearray(data)
    repaired[at : at + width] = size.to_bytes(width, order)
    return bytes(repaired)


def _check_form(data: bytes) -> None:
    """AIFF, AIFC and 8SVX: big-endian chunks."""
    declared = _number(data, 4, 4, "big")
    if declared and not _is_placeholder(declared):
        _refuse_cut(data, declared + 8, declared)
    for chunk in _chunks(data, 12, "big"):
        if chunk.name in (b"SSND", b"BODY") and not _is_placeholder(chunk.size):
            _refuse_cut(data, chunk.start + chunk.size, chunk.size)


def _check_w64(data: bytes) -> None:
    """Sizes have 64 bits and count the header of their chunk."""
    declared = _number(data, 16, 8)
    if declared < _PLACEHOLDER_64:
        _refuse_cut(data, declared, declared)
    at = 40
    while at + 24 <= len(data):
        size = _number(data, at + 16, 8)
        if data[at : at + 4] == b"data" and size < _PLACEHOLDER_64:
            _refuse_cut(data, at + size, size)
        if size < 24:
            return
        at += size + -size % 8


def _check_au(data: bytes) -> None:
    order: Order = "big" if data[:4] == b".snd" else "little"
    size = _number(data, 8, 4, order)
    if size != 0xFFFFFFFF:
        _refuse_cut(data, _number(data, 4, 4, order) + size, size)


def _check_sphere(data: bytes) -> None:
    """The header is text: its own length, then a line ``name -type value`` for each field."""
    head = data[8:16].strip()
    length = int(head) if _is_number(head.decode("latin-1")) else 0
    fields: dict[str, str] = {}
    for line in data[16:length].decode("latin-1").splitlines():
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2].strip()
    counts = [fields.get(name, "") for name in ("sample_count", "channel_count", "sample_n_bytes")]
    # What is compressed has another length.
    plain = fields.get("sample_coding", "pcm") in _SPHERE_TYPES
    if plain and all(map(_is_number, counts)):
        samples, channels, width = (int(count) for count in counts)
        if samples * channels * width > len(data) - length:
            there = max(0, len(data) - length) // max(1, channels * width)
            raise CorpusError(
                f"the recording is cut short: its header says {samples} samples and {there} are "
                f"there; copy the file again"
            )


def _is_number(word: str) -> bool:
    """Whether ``int`` reads it: a superscript is a digit too, and thousands of digits are refused."""
    return word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS


def _check_ogg(data: bytes) -> None:
    """A page says how long it is, and nothing says how many pages there are."""
    at = 0
    while data[at : at + 4] == b"OggS":
        table = data[at + 27 : at + 27 + data[at + 26]] if len(data) > at + 26 else b""
        end = at + 27 + len(table) + sum(table)
        if len(data) <= at + 26 or len(table) < data[at + 26] or end > len(data):
            raise CorpusError(
                f"the recording is cut short: its last Ogg page, from byte {at}, is not complete in "
                f"{len(data)} bytes; copy the file again"
            )
        at = end


def _chunks(data: bytes, at: int, order: Order) -> Iterator[_Chunk]:
    """Chunks of a 4-byte name and a 4-byte size, up to the one with the samples, which may be cut."""
    while at + 8 <= len(data):
        chunk = _Chunk(data[at : at + 4], at + 4, at + 8, _number(data, at + 4, 4, order))
        yield chunk
        if chunk.name in (b"data", b"SSND", b"BODY"):
            return
        at = chunk.start + chunk.size + chunk.size % 2


def _number(data: bytes, at: int, width: int, order: Order = "little") -> int:
    return int.from_bytes(data[at : at + width], order)


def _is_placeholder(size: int, width: int = 4) -> bool:
    if width == 8:
        return size >= _PLACEHOLDER_64
    return size >= _PLACEHOLDER_MIN or size in _ROUND_PLACEHOLDER


def _refuse_cut(data: bytes, needed: int, declared: int) -> None:
    if needed > len(data) + _SLOP_BYTES:
        raise CorpusError(
            f"the recording is cut short: its header says {declared} bytes and {len(data)} are "
            f"there; copy the file again"
        )
