"""The report of an evaluation: one HTML file that needs nothing else.

Data flows one way: the summary to words, tables and pictures (`parts`), those to HTML by a
template. Nothing but the template knows HTML, and nothing but the style sheet knows colours.
"""

from denograd.evaluation.html.page import render, write_report
from denograd.evaluation.html.words import Verdict, verdicts

__all__ = ["Verdict", "render", "verdicts", "write_report"]
