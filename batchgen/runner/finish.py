"""What is done to a checked picture before it is written: its history is embedded, unless the run was told not to."""

from __future__ import annotations

from collections.abc import Callable

from batchgen import __version__, metadata
from batchgen.images import ImageFacts
from batchgen.metadata import Embedded, Made
from batchgen.model import Job
from batchgen.settings import Settings

BY = f"batchgen {__version__}"


def finisher(settings: Settings) -> Callable[[bytes, ImageFacts, Job], Embedded]:
    """From a picture, what it is and its job to the picture as it is to be written."""

    def embed(data: bytes, facts: ImageFacts, job: Job) -> Embedded:
        made = Made(job.id, job.fingerprint, settings.style, job.model, job.request)
        return metadata.embed(data, facts.format, (facts.width, facts.height), made, BY)

    return embed if settings.embed else lambda data, facts, job: Embedded(data)
