"""Parts of the method that a configuration names: built in, or from another package.

A package offers a part through an entry point. The entry point's group says what the part is, and its name
is what the configuration names. Every process finds the parts by itself, so a package must be installed on
the driver and on the workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points

from gmp_atl_dist.errors import ConfigError


@dataclass(frozen=True)
class PluginGroup:
    """The parts of one kind.

    Attributes:
        name: the group of entry points.
        key: the configuration key that names one of the parts; errors begin with it.
        built_in: ``module:attribute`` by name. They are entry points too, and stand here as well so that
            a checkout works without being installed. No other package can replace them.
    """

    name: str
    key: str
    built_in: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """Every name that the configuration may have here, sorted. Nothing is imported."""
        installed = {point.name for point in entry_points(group=self.name)}
        return tuple(sorted(installed | set(self.built_in)))

    def has(self, name: str) -> bool:
        """Whether there is a part of that name. Nothing is imported."""
        return name in self.built_in or bool(entry_points(group=self.name, name=name))

    def check_name(self, name: str) -> None:
        """Raises ConfigError, with the known names, where there is no such part. Nothing is imported."""
        if not self.has(name):
            raise ConfigError(
                f"{self.key}: {name!r} is not known; known are {', '.join(self.names())}. A package can "
                f"add others with the entry point {self.name}"
            )

    def load(self, name: str) -> object:
        """Import the part of that name.

        Raises:
            ConfigError: there is none, or it cannot be imported.
        """
        self.check_name(name)
        try:
            if name in self.built_in:
                module, _, attribute = self.built_in[name].partition(":")
                return getattr(import_module(module), attribute)
            return next(iter(entry_points(group=self.name, name=name))).load()
        except (ImportError, AttributeError, TypeError) as e:
            raise self.not_loaded(name, e) from e

    def not_loaded(self, name: str, error: Exception) -> ConfigError:
        """The error for a part that exists and does not work."""
        return ConfigError(
            f"{self.key}: {name!r} cannot be loaded ({type(error).__name__}: {error}); repair or "
            f"reinstall its package"
        )
