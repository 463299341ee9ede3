"""Explains errors of a store and gives remedies."""

from __future__ import annotations

import errno
import os

from gmp_atl_dist.errors import GmpAtlError

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys) or "
    "AWS_PROFILE where the run starts and on every node, or give the pods a cloud identity"
)
_NETWORK = (
    "check AWS_ENDPOINT_URL and its port, that the store is up, and that no proxy or network policy "
    "blocks the connection"
)
_REMEDIES = {
    "NoSuchBucket": "create the bucket, or name another one with --root",
    "AccessDenied": "allow s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "
    "s3:DeleteObject below the root",
    "403": "check the keys; they must allow to list the bucket and to read and write below the root",
    "InvalidAccessKeyId": f"the store does not know this key; {_KEYS}",
    "SignatureDoesNotMatch": f"the secret does not match the key; {_KEYS}",
    "ExpiredToken": f"the credentials have expired; {_KEYS}",
    "InvalidToken": f"the session token is not accepted; {_KEYS}",
    "PermanentRedirect": "the bucket lies in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_REGION",
    "RequestTimeTooSkewed": "set this machine's clock (NTP); S3 rejects requests that are 15 minutes off",
}
_OS_REMEDIES = {
    errno.EACCES: "allow this user to read and write the folder",
    errno.EPERM: "allow this user to read and write the folder",
    errno.EROFS: "the file system is mounted read-only; mount it writable, or name another --root",
    errno.ENOSPC: "free space, or name another --root",
    errno.EDQUOT: "the quota is used up; free space, or name another --root",
    errno.ENOTDIR: "a part of the path is a file; name a folder",
}


def endpoint_name() -> str:
    """The S3 endpoint in use. It may contain a user name, which must be removed before it is shown."""
    configured = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return configured or f"Amazon S3 ({region or 'no AWS_REGION set'})"


def s3_code(error: BaseException) -> str:
    """S3's error code if the store answered with an error; otherwise ''."""
    from botocore.exceptions import ClientError

    cause = _cause(error)
    return (
        str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, ClientError) else ""
    )


def store_date(error: BaseException) -> str:
    """The store's time in its answer, in HTTP's format; '' without an answer."""
    from botocore.exceptions import ClientError

    cause = _cause(error)
    if not isinstance(cause, ClientError):
        return ""
    headers = cause.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("date", ""))


def explain(error: BaseException) -> tuple[str, str]:
    """A short description of the error, and the remedy."""
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
        return "its certificate is not trusted", "set AWS_CA_BUNDLE to the file of the authority"
    if isinstance(cause, (ConnectionError, HTTPClientError)):
        return f"{endpoint_name()} does not answer ({type(cause).__name__})", _NETWORK
    if isinstance(cause, ClientError):
        code = s3_code(cause)
        message = cause.response.get("Error", {}).get("Message", "")
        return f"{code}: {message}", _REMEDIES.get(code, f"ask the operator of {endpoint_name()}")
    if isinstance(cause, TimeoutError):
        return str(cause), _NETWORK
    if isinstance(cause, OSError) and cause.errno in _OS_REMEDIES:
        return f"{cause.strerror or cause}", _OS_REMEDIES[cause.errno]
    return (
        f"{type(cause).__name__}: {cause}",
        "check that the root exists and that you may read and write it",
    )


def _cause(error: BaseException) -> BaseException:
    """The innermost error that is not of this package, or ``error`` itself."""
    while isinstance(error, GmpAtlError) and error.__cause__ is not None:
        error = error.__cause__
    return error
