"""Multi-scale k-means over frame features."""
