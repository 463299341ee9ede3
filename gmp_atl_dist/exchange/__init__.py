"""Features and labels in fairseq's layout, in and out."""
