"""How a benchmark is run: command line, rounds, processes, machine, and the JSON line at the end."""
