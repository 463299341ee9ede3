"""GMP-ATL speech-emotion recognition on a cluster. Read ``pipeline.py`` first."""

__version__ = "0.2.0"
