"""A fine-tuned model behind HTTP: FastAPI in front, batches on Ray Serve behind it."""
