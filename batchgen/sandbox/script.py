"""What a sandbox does wrong and how slow it is: one frozen Script, and faults as text. No HTTP, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass

SANDBOX_KEY = "sandbox-key"

# Down to `failed200` nothing is drawn and nothing paid; from `disconnect` on the picture was paid for first.
FAULT_KINDS = {
    "reset": "the connection is reset as soon as the request is in",
    "hang": "the request is taken and never answered",
    "quota": "429: the daily quota is spent",
    "balance": "402: the account is empty",
    "refuse": "400: the prompt is refused (content_policy_violation)",
    "failed200": "HTTP 200 with status failed",
    "disconnect": "the connection closes without an answer, after the picture was paid for",
    "slow": "the answer trickles in",
    "truncate": "the connection closes in the middle of the answer",
    "badjson": "the JSON ends early",
    "badbase64": "the picture is not base64",
    "notimage": "the base64 holds no picture",
    "cutimage": "the picture lacks its last tenth",
    "empty": "a success answer without pictures",
    "html": "HTTP 200 with a proxy's page",
    "link": "the answer says where the picture lies, instead of holding it",
    "deadlink": "the answer says where the picture lies, and it is not there",
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: an HTTP status or a name, by chance, or `first` times at the start."""

    kind: str
    probability: float = 1.0
    first: int | None = None


def parse_fault(text: str) -> Fault:
    """`503:0.05` (one request in twenty), `hang:x2` (the first two requests), `html` (every request).

    Raises ValueError with a message for the user.
    """
    kind, colon, amount = text.strip().partition(":")
    if kind not in FAULT_KINDS and not (len(kind) == 3 and kind.isdecimal() and 300 <= int(kind) <= 599):
        raise ValueError(
            f"{text!r}: unknown fault {kind!r}; use an HTTP status from 300 to 599 or one of {', '.join(FAULT_KINDS)}"
        )
    if not colon:
        return Fault(kind)
    try:
        if amount.startswith("x") and int(amount[1:]) > 0:
            return Fault(kind, 0.0, int(amount[1:]))
        if 0 <= (probability := float(amount)) <= 1:
            return Fault(kind, probability)
    except ValueError:
        pass
    raise ValueError(
        f"{text!r}: {amount!r} is neither a probability from 0 to 1 nor a count; write {kind}:0.05 or {kind}:x3"
    )


@dataclass(frozen=True, kw_only=True)
class Script:
    """How one sandbox behaves.

    `latency_s`: shortest and longest time before a picture is drawn; `step_s` is added for every step asked for.
    `trickle_s`: how long a `slow` answer takes. `seed` decides the latencies and which requests meet a fault.
    """

    key: str = SANDBOX_KEY
    latency_s: tuple[float, float] = (0.02, 0.1)
    step_s: float = 0.0
    trickle_s: float = 5.0
    faults: tuple[Fault, ...] = ()
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    balance_usd: float = 100.0
    output_format: str = "png"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency_s[0] <= self.latency_s[1]:
            raise ValueError(f"latency {self.latency_s}: the shortest comes first, and neither is negative")
        if (total := sum(fault.probability for fault in self.faults)) > 1:
            raise ValueError(f"the faults' probabilities add up to {total:g}; at most 1 is possible")


class Fate:
    """What the script has in store for each request, in the order of their arrival."""

    def __init__(self, script: Script) -> None:
        self._script = script
        # Two streams, so that another latency leaves the faults where they are.
        self._fault_dice = random.Random(f"faults {script.seed}")
        self._latency_dice = random.Random(f"latency {script.seed}")
        self._scripted = [fault.kind for fault in script.faults for _ in range(fault.first or 0)][::-1]

    def next_fault(self) -> str | None:
        """The kind that the next request meets: counted ones first, in their order, then by chance."""
        roll = self._fault_dice.random()
        if self._scripted:
            return self._scripted.pop()
        for fault in self._script.faults:
            if roll < fault.probability:
                return fault.kind
            roll -= fault.probability
        return None

    def next_latency_s(self) -> float:
        return self._latency_dice.uniform(*self._script.latency_s)
