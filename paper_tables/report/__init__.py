"""The report: verdicts, tables, figures and every run in one HTML file."""
