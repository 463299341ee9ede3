"""Corpora: one module per corpus. Each lists utterances and reads no audio."""
