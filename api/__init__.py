"""The REST API. Endpoints only translate; jobs.repository decides and core.spec validates."""
