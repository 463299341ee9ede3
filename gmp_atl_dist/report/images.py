"""Small PNG images: spectrograms and strips of labels. The same bytes for the same content."""

from __future__ import annotations

import base64
import colorsys
import struct
import zlib

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.report.spectrogram import Spectrogram

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3
_GOLDEN = 0.6180339887498949
_COLOURS = 240
"""More than anybody can tell apart. Labels with the same colour are far apart in their ids."""


def png(pixels: npt.NDArray[np.uint8], palette: bytes = b"") -> bytes:
    """``pixels`` [height, width] as an 8-bit PNG: grey, or indices of ``palette`` (3 bytes a colour)."""
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, _INDEXED if palette else _GREY, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    if palette:
        chunks.insert(1, (b"PLTE", palette))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def spectrogram_uri(spectrogram: Spectrogram) -> str:
    """The spectrogram as an image, the lowest band at the bottom, dark where it is silent."""
    return data_uri("image/png", png(np.ascontiguousarray(spectrogram.array[::-1])))


def strip_uri(labels: npt.ArrayLike) -> str:
    """One pixel per frame; each label has a colour, and neighbouring ids have different ones."""
    ids = (np.asarray(labels, dtype=np.int64) % _COLOURS).astype(np.uint8)
    return data_uri("image/png", png(ids.reshape(1, -1), _palette()))


def _palette() -> bytes:
    colours = bytearray()
    for i in range(_COLOURS):
        hue = (i * _GOLDEN) % 1.0
        lightness = (0.38, 0.55, 0.7)[i % 3]
        colours += bytes(round(255 * c) for c in colorsys.hls_to_rgb(hue, lightness, 0.7))
    return bytes(colours)


def data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
