"""How large and how slow what comes may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How large and how slow requests may be: sizes in bytes, times in seconds; None is no limit.

    A request beyond one is answered with a status of 4xx where that is possible, and its connection is closed. Raises
    ValueError for what is not positive.
    """

    target: int | None = 8192
    """The target of a request (414)."""
    head: int | None = 32_768
    """The head of a request, and the trailer behind a body of chunks (431)."""
    fields: int = 100
    """How many header fields there may be, up to 256 (431)."""
    body: int | None = 1 << 30
    """The body of a request (413)."""
    head_timeout: float | None = 10.0
    """For how long the head of a request may be coming, from its first byte (408); with TLS the handshake, too."""
    idle_timeout: float | None = 75.0
    """For how long a connection may wait for a request."""
    body_timeout: float | None = 30.0
    """For how long there may be nothing of a body while it is read (408)."""
    write_timeout: float | None = 60.0
    """For how long a client may not take what is written."""
    message: int | None = 16 << 20
    """A message of a WebSocket (close code 1009)."""
    ping_interval: float | None = 20.0
    """How often an open WebSocket is sent a ping; if nothing at all comes after three of them it is closed (1011)."""
    connections: int = 10_000
    """How many connections there may be; further ones wait until one of them ends."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name not in ("fields", "connections"):
                continue
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"the limit {field.name} must be more than 0, not {value!r}")
        if self.fields > 256:
            raise ValueError(f"the limit fields must be 256 at most, not {self.fields}")

    def stats(self) -> dict[str, object]:
        """Give all of them, by their names."""
        return asdict(self)

    def _times(self) -> tuple[float | None, ...]:
        return (self.head_timeout, self.idle_timeout, self.body_timeout, self.write_timeout)

    def _sizes(self) -> tuple[int | None, ...]:
        return (self.target, self.head, self.fields, self.body)
