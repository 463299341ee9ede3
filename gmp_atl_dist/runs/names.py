"""Names of runs: what a run is called, and the record that belongs to a name or a configuration."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from gmp_atl_dist.config import RunConfig, RuntimeConfig, digest
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.errors import ArtifactError, ConfigError, GmpAtlError
from gmp_atl_dist.redaction import value_without_secrets, without_secrets
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import RunRecord, check_run_name, read_run, run_names

_UNNAMED = RuntimeConfig().run_name
_SHOWN = 20
_LOOK_UP_S = 10.0


def config_name(config: str | os.PathLike[str]) -> str:
    """The name of a configuration file without folder and suffix, in characters of run names."""
    stem = Path(config).name.removesuffix(".toml")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:60] or "run"


def named(config: RunConfig, file: str | os.PathLike[str]) -> RunConfig:
    """``config`` with the name that its run has below its root, as ``runtime.run_name``.

    The name is ``runtime.run_name`` where it is set and can be a run's name. Otherwise it is the name of
    the file and 8 characters of the science's digest. If another run has that name (other science, or
    another corpus), 8 characters of both are appended. The same configuration always gets the same name.
    """
    science = digest(config.science())
    name = config.runtime.run_name
    if name == _UNNAMED or not _is_valid(name):
        name = f"{config_name(file)}-{science[:8]}"
    corpus = corpus_place(config.runtime)
    other = f"{name[:90]}-{digest([science, corpus])[:8]}"
    # A store that does not answer is reported by the run itself.
    with suppress(GmpAtlError):
        store = Store.open(config.runtime.root, timeout_s=_LOOK_UP_S)
        for candidate in (other, name):
            record = read_run(store, candidate)
            if record is not None and belongs_to(record, science, corpus):
                name = candidate
                break
        else:
            name = name if read_run(store, name) is None else other
    runtime = config.runtime.model_copy(update={"run_name": name})
    return config.model_copy(update={"runtime": runtime})


def belongs_to(record: RunRecord, science: str, corpus: str) -> bool:
    """Whether ``record`` is of a run with this digest of the science and this corpus."""
    runtime = record.configuration.get("runtime")
    known = None
    if isinstance(runtime, dict):
        sources = runtime.get("corpora")
        known = (
            str(dict(sorted(sources.items())))
            if isinstance(sources, dict) and sources
            else runtime.get("corpus")
        )
    return record.fingerprint == science and known == corpus


def corpus_place(runtime: RuntimeConfig) -> str:
    """Where the corpus lies, or each of several, as :func:`belongs_to` compares it."""
    if not runtime.corpora:
        return without_secrets(runtime.corpus)
    return str({name: without_secrets(place) for name, place in sorted(runtime.corpora.items())})


def find_record(config: RunConfig, store: Store) -> RunRecord | None:
    """The newest record of this configuration; one of the same corpus folder comes first.

    A damaged record is passed over.
    """
    science, corpus = digest(config.science()), corpus_place(config.runtime)
    found = [record for record in read_runs(store) if record.fingerprint == science]
    found.sort(key=lambda r: (belongs_to(r, science, corpus), started_s(r)))
    return found[-1] if found else None


def read_runs(store: Store) -> list[RunRecord]:
    """Every readable record below a root, by name."""
    records: list[RunRecord] = []
    for name in run_names(store):
        with suppress(ArtifactError):
            record = read_run(store, name)
            if record is not None:
                records.append(record)
    return records


def get_run(store: Store, name: str) -> RunRecord:
    """The record of the run ``name``.

    Raises:
        ConfigError: there is no such run; the message lists those that there are.
        ArtifactError: the record is damaged.
    """
    record = read_run(store, name) if _is_valid(name) else None
    if record is None:
        raise ConfigError(f"{name!r} is no run below {store.uri}; {known_runs(store, name)}")
    return record


def known_runs(store: Store, name: str = "") -> str:
    """The names of the runs below a root, with the nearest to ``name``, for messages."""
    names = run_names(store)
    if not names:
        return "no run is recorded there: gmp-atl run records each one since release 0.3"
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{hint}runs there: {', '.join(names[:_SHOWN])}{more}"


def config_of(record: RunRecord, root: str) -> RunConfig:
    """The configuration of a recorded run; ``root`` is where it lies now.

    Raises:
        ConfigError: this release does not know the configuration.
    """
    configuration: dict[str, object] = {**record.configuration}
    runtime = configuration.get("runtime")
    configuration["runtime"] = {**(runtime if isinstance(runtime, dict) else {}), "root": root}
    return parse_config(configuration, f"the recorded configuration of run {record.name}")


def started_s(record: RunRecord) -> float:
    """When the run was started first, in Unix time; 0 if no attempt is recorded."""
    return record.attempts[0].started_s if record.attempts else 0.0


def public_configuration(config: RunConfig) -> dict[str, JsonValue]:
    """The configuration as a record stores it: all keys, no secrets."""
    return cast("dict[str, JsonValue]", value_without_secrets(config.model_dump(mode="json")))


def _is_valid(name: str) -> bool:
    try:
        check_run_name(name)
    except ConfigError:
        return False
    return True
