"""Explains errors of a store and gives remedies."""

from __future__ import annotations

import errno

from gmp_atl_dist.doctor.identities import s3_endpoint
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.store import azure_blob, google_cloud
from gmp_atl_dist.store.cloud_client import CloudError
from gmp_atl_dist.store.google_cloud import GS

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
_NO_BUCKET = "create the bucket or container, or name another one with --root"
_GOOGLE_TOKEN = (
    "on GKE bind the pods' ServiceAccount to a service account of Google (Workload Identity) and let pods "
    "reach the metadata server; elsewhere run gcloud auth application-default login, or set "
    "GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
)
_AZURE_TOKEN = (
    "on AKS label the pods azure.workload.identity/use and annotate their ServiceAccount with the client's "
    "id; on a machine of Azure give it a managed identity; elsewhere set AZURE_TENANT_ID, AZURE_CLIENT_ID, "
    "AZURE_CLIENT_SECRET, or AZURE_USE_AZURE_CLI=true"
)
_OS_REMEDIES = {
    errno.EACCES: "allow this user to read and write the folder",
    errno.EPERM: "allow this user to read and write the folder",
    errno.EROFS: "the file system is mounted read-only; mount it writable, or name another --root",
    errno.ENOSPC: "free space, or name another --root",
    errno.EDQUOT: "the quota is used up; free space, or name another --root",
    errno.ENOTDIR: "a part of the path is a file; name a folder",
}


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
    if isinstance(cause, CloudError):
        return str(cause), _cloud_remedy(cause)
    if isinstance(error, GmpAtlError) and isinstance(cause, (GmpAtlError, ImportError)):
        # It names the package or the variable that is missing, and what to do.
        return error.message, "do that here and on every node"
    if isinstance(cause, (NoCredentialsError, PartialCredentialsError)):
        return "no credentials for S3 were found", _KEYS
    if isinstance(cause, ProfileNotFound):
        return str(cause), _KEYS
    if isinstance(cause, SSLError):
        return "its certificate is not trusted", "set AWS_CA_BUNDLE to the file of the authority"
    if isinstance(cause, (ConnectionError, HTTPClientError)):
        return f"{s3_endpoint()} does not answer ({type(cause).__name__})", _NETWORK
    if isinstance(cause, ClientError):
        code = s3_code(cause)
        message = cause.response.get("Error", {}).get("Message", "")
        return f"{code}: {message}", _REMEDIES.get(code, f"ask the operator of {s3_endpoint()}")
    if isinstance(cause, TimeoutError):
        return str(cause), _NETWORK
    if isinstance(cause, OSError) and cause.errno in _OS_REMEDIES:
        return f"{cause.strerror or cause}", _OS_REMEDIES[cause.errno]
    return (
        f"{type(cause).__name__}: {cause}",
        "check that the root exists and that you may read and write it",
    )


def _cloud_remedy(error: CloudError) -> str:
    is_google = error.scheme == GS
    if error.code == "NoToken":
        return _GOOGLE_TOKEN if is_google else _AZURE_TOKEN
    if error.code == "NoBucket":
        return _NO_BUCKET
    if error.code == "Settings":
        return f"correct the variables {'GOOGLE_*' if is_google else 'AZURE_*'} of the environment"
    if error.status in (401, 403):
        return google_cloud.REMEDY if is_google else azure_blob.REMEDY
    if error.status == 0:
        return "check that no proxy, firewall or network policy blocks the connection"
    return "try again; if it stays, ask the operator of the account"


def _cause(error: BaseException) -> BaseException:
    """The innermost error that is not of this package, or ``error`` itself."""
    while isinstance(error, GmpAtlError) and error.__cause__ is not None:
        error = error.__cause__
    return error
