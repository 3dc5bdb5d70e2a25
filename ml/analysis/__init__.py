"""The analysis of a job's trials: correlations, importances, interactions, Pareto fronts and figures."""
