"""What benchmarks measure on: speech, silence, vectors, a stand-in for a model, a small run."""
