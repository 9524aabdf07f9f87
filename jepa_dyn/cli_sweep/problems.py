"""Mistakes in a configuration: each is told with the key at which it stands, and what is allowed there."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Problem(ValueError):
    """A mistake in a configuration, at a key."""

    def __init__(self, key: str, text: str):
        super().__init__(f"{key}: {text}")


def only(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Every key of the table is one of those."""
    allowed = tuple(allowed)
    for name in table:
        if name not in allowed:
            hint = did_you_mean(name, allowed) or f"; allowed: {', '.join(allowed)}"
            raise Problem(f"{where}{name}", f"unknown key{hint}")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest name that is allowed, else all of them."""
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(allowed)}" if allowed else ""


def told(key: str, build: Callable[[], Any]) -> Any:
    """What `build` gives; its errors under the key."""
    try:
        return build()
    except Problem:
        raise
    except (TypeError, ValueError) as error:
        raise Problem(key, str(error)) from None
