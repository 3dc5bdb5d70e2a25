"""What a job's trials say about its hyper-parameters: correlations, importances, interactions, fronts and figures."""
