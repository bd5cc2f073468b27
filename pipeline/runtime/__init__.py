"""The machine of a run: device, seeds, ranks, launcher, atomic files, folder lock. Nothing about methods or data."""
