"""HuBERT with padding-exact features, the heads on top of it, masking and losses."""
