"""What an error of a store means, and what to do about it."""

from __future__ import annotations

import errno
import os

from gmp_atl_dist.errors import GmpAtlError

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN too for temporary ones) or "
    "AWS_PROFILE where the run starts and on every node, or give the pods a cloud identity"
)
_NETWORK = (
    "check AWS_ENDPOINT_URL and its port, that the store is up, and that no proxy or network policy "
    "stands between"
)
_REMEDIES = {
    "NoSuchBucket": "make the bucket, or name another by --root",
    "AccessDenied": "allow s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "
    "s3:DeleteObject below the root",
    "403": "check the keys, and that they may list the bucket and read and write below the root",
    "InvalidAccessKeyId": f"the store does not know this key; {_KEYS}",
    "SignatureDoesNotMatch": f"the secret does not fit the key; {_KEYS}",
    "ExpiredToken": f"the credentials have expired; {_KEYS}",
    "InvalidToken": f"the session token is not accepted; {_KEYS}",
    "PermanentRedirect": "the bucket lies in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_REGION",
    "RequestTimeTooSkewed": "set this machine's clock (NTP); S3 refuses more than 15 minutes",
}
_OS_REMEDIES = {
    errno.EACCES: "let this user read and write the folder",
    errno.EPERM: "let this user read and write the folder",
    errno.EROFS: "the file system is mounted read-only; mount it writable, or name another --root",
    errno.ENOSPC: "make room, or name another --root",
    errno.EDQUOT: "the quota is used up; make room, or name another --root",
    errno.ENOTDIR: "something on the way is a file; name a folder",
}


def endpoint_name() -> str:
    """The S3 endpoint in use. Whoever shows it takes a user out of it."""
    set_ = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return set_ or f"Amazon S3 ({region or 'no AWS_REGION set'})"


def s3_code(error: BaseException) -> str:
    """S3's code of an error, if the store itself answered with one."""
    from botocore.exceptions import ClientError

    found = _cause(error)
    return (
        str(found.response.get("Error", {}).get("Code")) if isinstance(found, ClientError) else ""
    )


def store_date(error: BaseException) -> str:
    """The store's own time in its answer, as HTTP spells it; '' without an answer."""
    from botocore.exceptions import ClientError

    found = _cause(error)
    if not isinstance(found, ClientError):
        return ""
    headers = found.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("date", ""))


def explained(error: BaseException) -> tuple[str, str]:
    """What happened, in a few words, and the remedy."""
    from botocore.exceptions import (
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        SSLError,
    )

    cause = _cause(error)
    if isinstance(cause, (NoCredentialsError, PartialCredentialsError)):
        return "no credentials for S3 were found", _KEYS
    if isinstance(cause, ProfileNotFound):
        return str(cause), _KEYS
    if isinstance(cause, SSLError):
        return "its certificate is not trusted", "name the authority's file in AWS_CA_BUNDLE"
    if isinstance(cause, (ConnectionError, HTTPClientError)):
        return f"{endpoint_name()} does not answer ({type(cause).__name__})", _NETWORK
    if isinstance(cause, ClientError):
        code = s3_code(cause)
        said = cause.response.get("Error", {}).get("Message", "")
        return f"{code}: {said}", _REMEDIES.get(code, f"ask whoever runs {endpoint_name()}")
    if isinstance(cause, TimeoutError):
        return str(cause), _NETWORK
    if isinstance(cause, OSError) and cause.errno in _OS_REMEDIES:
        return f"{cause.strerror or cause}", _OS_REMEDIES[cause.errno]
    return (
        f"{type(cause).__name__}: {cause}",
        "check that the root exists and that you may read and write it",
    )


def _cause(error: BaseException) -> BaseException:
    """What our own error was made of, if it was made of another."""
    while isinstance(error, GmpAtlError) and error.__cause__ is not None:
        error = error.__cause__
    return error
