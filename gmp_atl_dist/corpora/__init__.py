"""One file a corpus; each lists utterances and reads no audio."""
