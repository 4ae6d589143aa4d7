"""The report page: one self-contained HTML file, from a report and the pictures beside it."""
