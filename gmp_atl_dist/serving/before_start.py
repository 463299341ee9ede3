"""What is checked before a server starts anything: its model and its address."""

from __future__ import annotations

import socket

from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.models.stored import MODEL_FILES
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.model_files import check_model_files


def check_model(uri: str) -> None:
    """Look for the files of a model before anything is started.

    Raises:
        ModelError: they are not there.
        ArtifactError: they are those of an artefact, and differ from its receipts.
    """
    check_model_files(uri)
    store = Store.open(uri)
    present = {entry.path for entry in store.list()}
    missing = [name for name in MODEL_FILES if name not in present]
    if missing:
        raise ModelError(
            f"{uri} has no {' and no '.join(missing)}; give the files/ folder of a finetune artefact, or "
            f"an exported classifier"
        )


def free_port(host: str, port: int) -> int:
    """``port`` if nothing listens there, or a free one for 0.

    Raises:
        ConfigError: the port is in use, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise ConfigError(f"--host {host} --port {port}: {reason}; give another port") from None
