"""The page of a folder: entries and numbers in, text out. Opens nothing but its own templates, knows no clock.

`Report` takes in entries; `pages.render` makes the text. `assets/` holds the page's template, style and script.
"""

from batchgen.report.facts import Scene, Stand, Thumb
from batchgen.report.gathering import Report
from batchgen.report.pages import render

__all__ = ["Report", "Scene", "Stand", "Thumb", "render"]
