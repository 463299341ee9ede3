"""A first configuration for a corpus and a machine: ``gmp-atl config init``."""
