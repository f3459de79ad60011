"""How long earlier pictures took and how large they are, by model: the last of them, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field

import msgspec

from batchgen.model import Outcome

KEPT = 1000


class _Size(msgspec.Struct, frozen=True):
    size_bytes: int


class _Time(msgspec.Struct, frozen=True):
    response_s: float | None = None


class _Made(msgspec.Struct, frozen=True):
    """What this needs of an entry."""

    model: str
    outcome: Outcome
    api: str
    timings: _Time
    images: tuple[_Size, ...] = ()


_made = msgspec.json.Decoder(_Made)


@dataclass
class Earlier:
    """The last pictures of one model: seconds until the answer was whole, and bytes of each picture."""

    response_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    size_bytes: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))


@dataclass
class History:
    """Takes in log lines; what was made by another API style, or by other models than `models`, does not count."""

    style: str
    models: Container[str]
    by_model: dict[str, Earlier] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        """Raises one of BAD_LINE for a damaged line."""
        made = _made.decode(line)
        if made.outcome is not Outcome.DONE or made.api != self.style or made.model not in self.models:
            return
        seen = self.by_model.setdefault(made.model, Earlier())
        if made.timings.response_s is not None:
            seen.response_s.append(made.timings.response_s)
        seen.size_bytes.extend(image.size_bytes for image in made.images)
