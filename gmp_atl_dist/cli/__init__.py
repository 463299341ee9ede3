"""The command line ``gmp-atl``. One module per group of commands; ``main.py`` puts them together."""
