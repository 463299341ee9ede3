"""What benchmarks compare. Nothing here is a command; heavy libraries are imported here."""
