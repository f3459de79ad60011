"""A failing story made small: whatever can be left out without the same promise holding again is left out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nights.scenario import Scenario, smaller
from nights.stage import Story, play

MOST_TRIES = 400


def promise(broken: str) -> str:
    """Which promise a complaint is about."""
    return broken.partition(":")[0]


def play_apart(scenario: Scenario) -> Story:
    """Play a story in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="batchgen-night-") as folder:
        return play(scenario, Path(folder))


def shrink(story: Story) -> Story:
    """The smallest story found that breaks the same promise."""
    wanted, tries = promise(story.broken[0]), 0
    improved = True
    while improved and tries < MOST_TRIES:
        improved = False
        for candidate in smaller(story.scenario):
            tries += 1
            other = play_apart(candidate)
            if any(promise(broken) == wanted for broken in other.broken):
                story, improved = other, True
                break
            if tries >= MOST_TRIES:
                break
    return story


def told(story: Story) -> str:
    """The story in lines for people, with what it broke and how to see it again."""
    head = [f"seed {story.scenario.seed} breaks:", *(f"  {broken}" for broken in story.broken), str(story.scenario)]
    return "\n".join([*head, *sorted(story.lines, key=_when)])


def _when(line: str) -> float:
    return float(line.split(" s ", 1)[0])
