"""Simulated nights: the real run, from the manifest to the summary, in a world made of numbers from one seed.

`scenario` says what happens; `disk`, `files`, `objects`, `server`, `machine` and `threads` are the world; `stage` plays
a scenario; `promises` looks at what is left and at the server's ledger; `shrink` makes a failing scenario small.
`python -m nights` plays many.
"""
