"""Wiring: what was said on the command line or by a program becomes a run, a plan or a look at a folder.

Imports nothing: a look at a folder needs little of what a run needs.
"""
