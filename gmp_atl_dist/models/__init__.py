"""The backbone protocol and HuBERT behind it, heads, masking and losses."""
