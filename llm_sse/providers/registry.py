"""The table of providers while it is used: built-in rows, rows from outside, entry points.

A distribution offers rows of its own as entry points of the group `llm_sse.providers`: the entry
point's name is the provider's, its value a row, or a function without arguments that returns one.
They are looked for only when an unknown name is asked for, because looking takes time.

Thread: every function may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .base import Provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "FORMATS",
    "PROVIDERS",
    "find_provider",
    "provider_names",
    "register_provider",
    "unused_offers",
]

_GROUP = "llm_sse.providers"

#: The module that holds a format and its first row, by the row's name, in the order in which they
#: are listed to people. A default model is written in a row and nowhere else; an alias that its
#: provider keeps alive is better than a dated name.
_HOMES = {
    "openai": ".openai",
    "openai-responses": ".responses",
    "anthropic": ".anthropic",
    "gemini": ".gemini",
    "ollama": ".ollama",
}
#: The modules with all other rows.
_GATEWAYS, _VIEW = ".gateways", ".view"

#: The name of each format's first row: whose format it is.
FORMATS = tuple(_HOMES)


class _Rows(MutableMapping[str, Provider]):
    """The rows by name, in the order in which they are listed to people.

    A row that comes with the package is imported when it is asked for: a vendor's alone, the others
    together.

    Thread: any. Who imports a row that another thread imports too, gets the same one.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Provider | None] = dict.fromkeys(_HOMES)
        self._whole = False

    def __getitem__(self, name: str) -> Provider:
        if name not in self._rows:
            self._complete()
        row = self._rows[name]
        if row is None:
            built_in: Provider = import_module(_HOMES[name], __package__).ROW
            with _filling:  # somebody may have put another one there meanwhile
                row = self._rows[name] = self._rows.get(name) or built_in
        return row

    def __setitem__(self, name: str, row: Provider) -> None:
        self._complete()
        with _filling:
            self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        self._complete()
        with _filling:
            del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        self._complete()
        return iter(list(self._rows))

    def __len__(self) -> int:
        self._complete()
        return len(self._rows)

    def _complete(self) -> None:
        """Add the rows that are imported together; none has been added or removed before."""
        if self._whole:
            return
        gateways = import_module(_GATEWAYS, __package__).GATEWAYS
        rows = (*gateways, import_module(_VIEW, __package__).ROW)
        with _filling:
            if not self._whole:
                self._rows.update({row.name: row for row in rows})
                self._whole = True


_filling = threading.Lock()

#: The rows by name, in the order in which they are listed to people.
PROVIDERS: MutableMapping[str, Provider] = _Rows()
_lock = threading.Lock()
#: The names that entry points gave, as far as they were loaded.
_installed: dict[str, Provider] = {}
#: What a thread is loading.
_loading = threading.local()


def register_provider(row: Provider, *, replace: bool = False) -> None:
    """Make a row known under its name, to this process.

    Args:
        row: The row: one of the classes of `llm_sse.providers`, with its fields.
        replace: Whether it may take the place of a row of that name.

    Raises:
        ConfigurationError: It is no row, or the name is taken.
    """
    if not isinstance(row, Provider):
        raise ConfigurationError(f"a row must be a Provider, such as OpenAI(...), {_not(row)}")
    with _lock:
        if row.name in PROVIDERS and not replace:
            raise ConfigurationError(
                f"there is a provider {row.name!r} already; take another name, or replace=True"
            )
        PROVIDERS[row.name] = row


def find_provider(name: object) -> Provider:
    """Return the row of a provider; a row is returned as it is.

    Raises:
        ConfigurationError: There is none of that name, or its entry point cannot be loaded.
    """
    if isinstance(name, Provider):
        return name
    row = PROVIDERS.get(name) if isinstance(name, str) else None
    if row is not None:
        return row
    offers = [offer for offer in _offers() if offer.name == name]
    if not offers:
        raise ConfigurationError(
            f"unknown provider {name!r}; there are: {', '.join(provider_names())}"
        )
    if len(offers) > 1:
        raise ConfigurationError(
            f"the provider {name!r} is offered by {' and by '.join(map(_origin, offers))}; "
            "uninstall all but one"
        )
    loaded = _loaded(offers[0])
    with _lock:  # not while loading: what is loaded may register rows itself
        _installed[loaded.name] = loaded
        return PROVIDERS.setdefault(loaded.name, loaded)


def provider_names() -> list[str]:
    """Return the names of all rows, those of entry points that were not loaded yet included."""
    return list(dict.fromkeys([*PROVIDERS, *(offer.name for offer in _offers())]))


def unused_offers() -> list[str]:
    """Say of each entry point that nobody gets, because a row of its name was there before."""
    return [
        f"the provider {offer.name!r} of {_origin(offer)} is not used: there is a row of that name "
        "already"
        for offer in _offers()
        if offer.name in PROVIDERS and PROVIDERS[offer.name] is not _installed.get(offer.name)
    ]


def _offers() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - it takes long to import

    return sorted(entry_points(group=_GROUP), key=lambda offer: offer.name)


def _loaded(offer: EntryPoint) -> Provider:
    """Load an entry point's row.

    Raises:
        ConfigurationError: It cannot be loaded, is no row, or is one of another name.
    """
    whose = f"the provider {offer.name!r} of {_origin(offer)}"
    names: set[str] = _loading.__dict__.setdefault("names", set())
    if offer.name in names:
        raise ConfigurationError(f"{whose} asks for itself while it is loaded")
    names.add(offer.name)
    try:
        row: Any = offer.load()
        if callable(row) and not isinstance(row, Provider):
            row = row()
    except (Exception, SystemExit) as error:  # the other distribution's own
        raise ConfigurationError(
            f"{whose} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    finally:
        names.remove(offer.name)
    if not isinstance(row, Provider):
        raise ConfigurationError(
            f"{whose} must be a Provider or a function that returns one, {_not(row)}"
        )
    if row.name != offer.name:
        raise ConfigurationError(
            f"{whose} calls itself {row.name!r}; the two names must be the same"
        )
    return row


def _origin(offer: EntryPoint) -> str:
    dist = offer.dist
    return f"{dist.name} {dist.version} ({offer.value})" if dist else offer.value


def _not(value: object) -> str:
    if isinstance(value, type):
        return f"not the class {value.__name__} itself"
    return f"not {type(value).__name__}"
