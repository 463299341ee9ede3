"""Which stages run at the same time: what each asks of the cluster, what is free, and in which order."""
