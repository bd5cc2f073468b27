"""One caption for every training image, by a vision-language model: slow, so it can be stopped, resumed and sharded.

`settings` (prompts and options), `models` (captioners of the transformers library, which only this room needs), `files`
(a caption file that survives kills, its metadata, merging of shards), `captioning` (the loop).
"""
