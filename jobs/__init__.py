"""What API and worker share: states, tables, the repository, storage and settings. No web, queue or engine."""
