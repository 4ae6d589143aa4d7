"""The dashboard's pages: from schemas, epochs and reports to what their templates show."""
