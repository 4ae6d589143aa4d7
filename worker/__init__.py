"""Runs jobs: claims them, supervises their child processes, stores what they reach. Never loads torch."""
