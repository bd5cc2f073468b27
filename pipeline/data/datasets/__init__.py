"""One folder a data set: how it is read, checked and obtained. Search protocols belong to `pipeline.evaluation`."""
