"""Artefacts in a folder or in object storage: whole objects, receipts, manifest last."""
