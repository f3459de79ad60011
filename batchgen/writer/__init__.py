"""From answers to pictures and log lines: decode, check, stage, commit, a group at a time, on one thread.

A group becomes durable in one order: pictures under temporary names, their complete entries in the attempts file, final
names, log lines. Only then does anybody learn that a job is done. What an answer means and where bytes go is decided by
the callables handed in. `stager` brings a group as far as the temporary names, `committer` from there to the log: where
pictures are made on other machines, the first is done there and the second where the log is.
"""

from batchgen.writer.committer import Committer
from batchgen.writer.patience import HOPE_S, RETRY_S, Patience
from batchgen.writer.stager import Stager
from batchgen.writer.thread import GROUP, Writer

__all__ = ["GROUP", "HOPE_S", "RETRY_S", "Committer", "Patience", "Stager", "Writer"]
