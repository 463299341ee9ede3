"""Import and export: fairseq's features, labels and codebooks; models for transformers."""
