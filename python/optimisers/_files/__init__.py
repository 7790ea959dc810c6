"""States as files: saved, loaded, looked at."""
