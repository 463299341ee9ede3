"""The results of a run as one JSON document and one self-contained HTML page."""
