"""What a sweep leaves: tables, a figure, the best config, MLflow runs and the registered encoder."""
