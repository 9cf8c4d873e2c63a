"""Study results as one self-contained page, and as a picture and a table for every chart."""

from omnisink.report.write import write_report

__all__ = ["write_report"]
