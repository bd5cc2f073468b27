"""The machine of a run: device, seeds, ranks, launcher, processes, files, locks. Nothing about methods or data."""
