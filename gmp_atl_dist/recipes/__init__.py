"""The recipe of each trained stage: its model, its loss, and the files that it keeps."""
