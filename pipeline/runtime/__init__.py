"""The machine that a run uses: device, seeds, ranks, launcher, atomic files, folder lock.

Nothing about methods or data.
"""
