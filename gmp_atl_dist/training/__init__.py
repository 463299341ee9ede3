"""One loop for every trained stage."""
