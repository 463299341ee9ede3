"""A sweep: arms, folds and seeds of one experiment, side by side on one cluster, and what came of them."""
