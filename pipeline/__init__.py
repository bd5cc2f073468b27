"""What an experiment is made of: settings, data, training, evaluation, records and methods. Runs without Prefect."""
