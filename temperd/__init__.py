"""The server command and composition root: the only place that knows API and worker both."""
