"""Statistics of arms: scores over seeds, intervals, paired tests, calibration. numpy and scipy alone."""
