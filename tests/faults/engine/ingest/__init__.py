"""Stands in for ingest beside the engine that stands in."""
