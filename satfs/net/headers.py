"""The headers of a response, whichever client received it. *Pure*; a worker reads them as well."""

from __future__ import annotations

from collections.abc import Iterable


def plain_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return *headers* with lower-case names.

    A header that is sent twice, by a server and a proxy before it, counts once if both are the
    same; otherwise its values are joined (RFC 9110 §5.2).
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        values = found.setdefault(name.lower(), [])
        if value not in values:
            values.append(value)
    return {name: ", ".join(values) for name, values in found.items()}
