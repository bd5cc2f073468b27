"""One caption for every training image, by a vision-language model: slow, so it can be stopped, resumed and divided.

From images to a file: `settings` and `prompts` (what is asked, and how), `captioner` (who answers), `adapters` and
`loading` (models of the transformers library, the one package that this needs beyond the others), `provenance` (what a
file says of itself), `caption_writer` (a file that no kill damages), `describing` (the loop), `shards` and `merging`
(several machines), `captioning` (all of it).
"""
