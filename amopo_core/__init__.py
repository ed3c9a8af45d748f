"""The library: data, views, loss, weighting, training, evaluation, promotion. Knows no Prefect, MLflow or DVC."""
