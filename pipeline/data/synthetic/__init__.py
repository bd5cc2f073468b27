"""People, cameras and captions that stand in where licensed images cannot be: drawn, not photographed.

The task is hard in the way the real one is: colours do not carry over to infrared; shape, texture and meaning do. From
a seed and a few knobs to pixels: `knobs` (how hard), `wardrobe` and `people` (who), `cameras` and `scenes` (where),
`pose` (when), `clothes` and `accessories` on a `sketch` (what), `raster` (pixels), `images` (one image), `captions`
(one sentence), `studio` (any image of a data set), `plan` and `layout_*` (which images, under which names), `lists`
(what lies beside them), `writer` (all, to disk).
"""
