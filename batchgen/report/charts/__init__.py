"""Charts as inline SVG, drawn by pure functions: numbers in, markup out, each with its numbers as a table.

Colours and fonts are classes of the page's style, so that one drawing serves light, dark and print.
"""

from batchgen.report.charts.chart import Chart, Table
from batchgen.report.charts.days import per_day
from batchgen.report.charts.distribution import distribution
from batchgen.report.charts.spent import where_time_went
from batchgen.report.charts.timeline import timeline
from batchgen.report.charts.trend import trend

__all__ = ["Chart", "Table", "distribution", "per_day", "timeline", "trend", "where_time_went"]
