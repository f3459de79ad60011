"""Real threads. The only module that starts those which nobody has to wait for, however long a server takes."""

from __future__ import annotations

import threading
from collections.abc import Callable


def start(name: str, act: Callable[[], None]) -> threading.Thread:
    """A thread that does `act`; the program may end before it. Threads of a pool would be waited for."""
    thread = threading.Thread(target=act, name=name, daemon=True)
    thread.start()
    return thread
