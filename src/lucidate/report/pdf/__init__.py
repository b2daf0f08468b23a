"""The report of a run as a designed PDF: findings become content, content becomes pages by Typst."""

from lucidate.report.pdf.of_run import report_of_run

__all__ = ["report_of_run"]
