"""Who is on these infrared images? Rank the images of a visible folder for each image of an infrared one.

    python examples/search_two_folders.py VISIBLE INFRARED [--run runs/RUN] [--top 5]

RUN is the folder of a run, one of its checkpoints, or an address of MLflow such as models:/NAME/1. By default the demo
CLIP is used as it is, which finds little. `vireid search` does the same, and keeps an index of the gallery.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer

from models.modality import Modality
from pipeline.config.presets import load_config
from pipeline.data.image_list import list_images
from pipeline.inference.encoder import RunEncoder
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.run_encoder import empty_encoder, open_encoder
from pipeline.inference.searching import search_gallery


def untrained_encoder():
    """The demo CLIP as an encoder of both modalities, with the image size of preset `demo`."""
    config = load_config("demo")
    cpu = torch.device("cpu")
    return RunEncoder("demo CLIP", empty_encoder(config).eval(), config, round=0, device=cpu, precision="float32")


def main(visible: Path, infrared: Path, run: str | None = None, top: int = 5) -> None:
    """Print a ranked list for each infrared image."""
    encoder = untrained_encoder() if run is None else open_encoder(run)
    queries = list_images(infrared, Modality.INFRARED)
    with TemporaryDirectory() as scratch:
        source = GallerySource(visible, Modality.VISIBLE)
        gallery, _ = open_or_refresh(source, None, Path(scratch), encoder, batch_size=64)
        result = search_gallery(encoder, queries, gallery, top, batch_size=64)
    for query in result.queries:
        print(query.path)
        for place, hit in enumerate(query.hits, start=1):
            print(f"  {place:2}. {hit.score:.3f}  {hit.path}")


if __name__ == "__main__":
    typer.run(main)
