"""What a run found, as one JSON document and one self-contained page."""
