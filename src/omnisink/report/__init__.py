"""Results to one self-contained page, and to a picture and a table for every chart."""

from omnisink.report.comparison import write_comparison
from omnisink.report.write import missing_libraries, write_report

__all__ = ["missing_libraries", "write_comparison", "write_report"]
