"""Synthetic people, cameras and captions, for tests and demonstrations without licensed images.

The task is hard in the way the real one is: colours do not carry over to infrared; shape, texture and meaning do.
`knobs` (difficulty), `people` (garments and people), `cameras` (cameras and scenes), `pose`, `figure` (primitives),
`raster` (pixels), `captions`, `images` (any image of a data set), `plan` and `layouts` (images, file names and lists of
a data set), `writer` (all of it, to disk). Everything follows from a seed and the knobs.
"""
