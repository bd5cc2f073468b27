"""The folder of a run: file names, checkpoint, reader. Importable without torch."""
