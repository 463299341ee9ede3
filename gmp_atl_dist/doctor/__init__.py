"""Whether a run could work, found out in seconds and before it costs anything: ``gmp-atl doctor``.

One module a thing that is looked at; each yields findings and raises nothing that a user can cause.
"""
