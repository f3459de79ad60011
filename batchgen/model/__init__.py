"""The nouns: what every other module talks about. No behaviour beyond what a value knows of itself.

Nothing here imports from the package, reads a clock, opens a file or draws a random number.
"""

from batchgen.model.entries import Attempt, Billed, Counts, Entry, Failure, Outcome, Picture, Timings
from batchgen.model.errors import (
    AccountRefused,
    AttemptFailed,
    BadAnswer,
    BatchgenError,
    BudgetSpent,
    ExitCode,
    FolderBusy,
    InputChanged,
    Interrupted,
    ManifestChanged,
    ManifestError,
    Problem,
    Refusal,
    StorageError,
    UsageError,
)
from batchgen.model.jobs import Api, FileInput, Header, Job, Selection, Shard, Standing
from batchgen.model.wire import Body, Post, Reply, Secret, ServerError

__all__ = [
    "AccountRefused",
    "Api",
    "Attempt",
    "AttemptFailed",
    "BadAnswer",
    "BatchgenError",
    "Billed",
    "Body",
    "BudgetSpent",
    "Counts",
    "Entry",
    "ExitCode",
    "Failure",
    "FileInput",
    "FolderBusy",
    "Header",
    "InputChanged",
    "Interrupted",
    "Job",
    "ManifestChanged",
    "ManifestError",
    "Outcome",
    "Picture",
    "Post",
    "Problem",
    "Refusal",
    "Reply",
    "Secret",
    "Selection",
    "ServerError",
    "Shard",
    "Standing",
    "StorageError",
    "Timings",
    "UsageError",
]
