"""Files that mean harm, and files that real users have: made by scripts, tried against every parser of ingest."""
