"""`make server` and `make deploy`: Prefect's server, its worker and MLflow's pages as local services."""
