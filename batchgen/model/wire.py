"""What goes over the wire: the key, a request, an answer."""

from __future__ import annotations

import msgspec

Body = bytes | bytearray
"""What a server sent; nobody changes it."""


class Secret:
    """A key that cannot be printed by accident; `reveal` is for the one header that needs it.

    It is empty where a server asks for none; `also` are other secrets that travel with it, and are hidden like it.
    """

    __slots__ = ("_hidden", "_value")

    def __init__(self, value: str, *also: str) -> None:
        self._value = value
        # The longest first: a key may be the beginning of another one.
        self._hidden = tuple(sorted({*filter(None, (value, *also))}, key=lambda each: (-len(each), each)))

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._value

    def beside(self, *others: Secret) -> Secret:
        """The same key, with others that are hidden like it."""
        return Secret(self._value, *self._hidden, *(value for other in others for value in other._hidden))

    def hide(self, text: str) -> str:
        """`text` without the key, should a server have echoed it."""
        for value in self._hidden:
            text = text.replace(value, "***")
        return text

    def hide_bytes(self, data: Body) -> bytes:
        data = bytes(data)
        for value in self._hidden:
            data = data.replace(value.encode(), b"***")
        return data


class Post(msgspec.Struct, frozen=True):
    """A request as it leaves: the path below the API's address, the type of its body, the body."""

    path: str
    content_type: str
    body: bytes


class Reply(msgspec.Struct, frozen=True):
    """What a server answered, untouched. Times in seconds since the request was handed over.

    `links` are addresses of pictures that a success answer names instead of holding them.
    """

    status: int
    headers: dict[str, str]
    body: Body
    first_byte_s: float
    response_s: float
    links: tuple[str, ...] = ()


class ServerError(msgspec.Struct, frozen=True):
    """What a server says went wrong. `shaped`: it speaks the API's own error shape, not a proxy's page."""

    message: str
    code: str | None = None
    shaped: bool = False
