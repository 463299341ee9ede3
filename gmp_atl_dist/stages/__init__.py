"""The method, one module a stage."""
