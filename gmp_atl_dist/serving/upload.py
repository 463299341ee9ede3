"""The bytes of a recording, from a multipart form or from the body itself, within the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from gmp_atl_dist.serving.limits import MIB, Limits
from gmp_atl_dist.serving.refusals import Refusal

# Boundaries and headers of the parts around the file.
_FORM_BYTES = 64 << 10
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/x-www-form-urlencoded")


def announced_bytes(request: Request, limits: Limits) -> int:
    """The bytes that the client says it sends; the most that is allowed if it does not say.

    Raises:
        Refusal: 413, it is more than is allowed; nothing was read. 400, it is no number.
    """
    text = request.headers.get("content-length")
    if text is None:
        return limits.max_bytes
    if not text.isascii() or not text.isdigit():
        raise Refusal(400, "bad_request", f"Content-Length {text!r} is no number of bytes")
    if int(text) > limits.max_bytes + (_FORM_BYTES if _is_form(request) else 0):
        raise _too_large(limits)
    return int(text)


async def read_recording(request: Request, limits: Limits) -> bytes:
    """The bytes of the recording in a request.

    Raises:
        Refusal: 400 without a recording, 408 too slow, 413 too large, 415 of a type that is text.
    """
    try:
        async with asyncio.timeout(limits.answer_s):
            data = await (_from_form if _is_form(request) else _from_body)(request, limits)
    except TimeoutError:
        raise Refusal(
            408, "upload_too_slow", f"the upload took longer than {limits.answer_s:g} s"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "bad_request", "the client ended the upload early") from None
    if not data:
        raise Refusal(
            400,
            "no_recording",
            "the request has no recording; send the file as the body, or as a form",
        )
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    return data


async def _from_body(request: Request, limits: Limits) -> bytes:
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(_TEXT_TYPES):
        raise Refusal(
            415,
            "not_audio",
            f"the body is {kind.partition(';')[0]}; send the recording itself as audio/wav or "
            f"application/octet-stream, or as multipart/form-data",
        )
    return b"".join([piece async for piece in _limited(request, limits, limits.max_bytes)])


async def _from_form(request: Request, limits: Limits) -> bytes:
    pieces = _limited(request, limits, limits.max_bytes + _FORM_BYTES)
    parser = MultiPartParser(request.headers, pieces, max_files=1, max_fields=8)
    # In memory, which the gate has counted; a server may have no disk to write to.
    parser.spool_max_size = limits.max_bytes + _FORM_BYTES
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, AssertionError) as e:
        reason = getattr(e, "message", "no boundary")
        raise Refusal(
            400,
            "bad_form",
            f"the form cannot be read ({reason}); send one file as multipart/form-data",
        ) from e
    try:
        fields = [name for name, value in form.multi_items() if not isinstance(value, UploadFile)]
        if fields:
            raise Refusal(
                400,
                "bad_form",
                f"the form has the field {', '.join(map(repr, fields))}, which is no file; parameters "
                f"belong into the address, as in ?window=3",
            )
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        return await files[0].read() if files else b""
    finally:
        await form.close()


async def _limited(request: Request, limits: Limits, most: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for piece in request.stream():
        received += len(piece)
        if received > most:
            raise _too_large(limits)
        yield piece


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413,
        "too_large",
        f"the upload is larger than {limits.max_bytes / MIB:g} MiB; send a shorter recording, or FLAC",
    )
