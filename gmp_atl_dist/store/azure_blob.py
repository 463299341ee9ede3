"""Azure Blob Storage: how its client is opened, and whose identity it uses.

``az://CONTAINER/PREFIX``; ``AZURE_STORAGE_ACCOUNT_NAME`` names the account. All settings are those of
``obstore``, by environment variables: https://developmentseed.org/obstore/latest/api/store/azure/
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gmp_atl_dist.errors import ArtifactError

if TYPE_CHECKING:
    from obstore.store import AzureStore

AZ = "az://"
ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
REMEDY = (
    f"check {ACCOUNT}, that the container exists, and that the identity (doctor names it) has the role "
    "Storage Blob Data Contributor on it"
)
_AUTHORITY = ("AZURE_STORAGE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST")
_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY")
_SHARED = ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN")
_CLIENT = ("AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID")
_TENANT = (
    "AZURE_TENANT_ID",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_AUTHORITY_ID",
    "AZURE_STORAGE_AUTHORITY_ID",
)
_SECRET = ("AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET")
_YES = ("1", "true", "on", "yes", "y")


def endpoint() -> str:
    """The server that is asked."""
    named = _first(("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"))
    return named or f"https://{os.environ.get(ACCOUNT, '')}.blob.core.windows.net"


def open_container(container: str, client: dict[str, Any], retry: dict[str, Any]) -> AzureStore:
    """The client of a container, without a request. A server at ``http://`` is for tests.

    Raises:
        ArtifactError: the environment names no account.
    """
    from obstore.store import AzureStore

    emulated = _is_on("AZURE_STORAGE_USE_EMULATOR")
    if not os.environ.get(ACCOUNT) and not emulated:
        raise ArtifactError(
            f"az://{container}: no storage account is named; set {ACCOUNT} to the account of the container, "
            f"where the run starts and on every node"
        )
    client = client | {"allow_http": emulated or urlsplit(endpoint()).scheme == "http"}
    config: dict[str, Any] = {}
    if authority := _first(_AUTHORITY):
        # AKS sets it with a slash at its end, and obstore puts another one behind it.
        config["authority_host"] = authority.rstrip("/")
    return AzureStore(container, config=config, client_options=client, retry_config=retry)  # pyright: ignore[reportArgumentType]


def identity() -> str:
    """Whose identity requests carry, in the order in which obstore looks for one."""
    if _first(("AZURE_STORAGE_TOKEN",)):
        return "the token in AZURE_STORAGE_TOKEN, which nothing renews"
    if named := next((name for name in _KEYS if os.environ.get(name)), None):
        return f"the account's key in {named}"
    client, tenant = _first(_CLIENT), _first(_TENANT)
    if client and tenant and os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return f"workload identity: client {client} of tenant {tenant}"
    if client and tenant and _first(_SECRET):
        return f"the secret of client {client} of tenant {tenant}"
    if named := next((name for name in _SHARED if os.environ.get(name)), None):
        return f"the shared access signature in {named}"
    if _is_on("AZURE_USE_AZURE_CLI"):
        return "the user of the Azure command line"
    return f"the managed identity of this machine{f': client {client}' if client else ''}"


def _first(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in _YES
