"""Stands in for the engine where volume counts: a real child process with the same contract, without torch."""
