"""The search application on a gallery in Milvus: the answers, filters, pictures and marks of an index folder."""

from dataclasses import replace
from pathlib import Path

from models.modality import Modality
from pipeline.inference.index import GallerySource
from pipeline.inference.served_milvus import ServedMilvus, open_served
from tests.flows.server.search_desks import client_of, desk_of, png
from tests.pipeline.inference.mean_encoder import needs_milvus


@needs_milvus
def test_answers_are_those_of_an_index_folder(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    source = GallerySource(tmp_path / "site" / "site.csv", Modality.VISIBLE)
    address = Path(f"milvus://{tmp_path}/g.db?collection=day")
    served = open_served(source, address, desk.encoder, batch_size=4)
    assert isinstance(served, ServedMilvus)
    ours, theirs = client_of(replace(desk, galleries={Modality.INFRARED: served})), client_of(desk)
    assert ours.get("/api/gallery").json() == theirs.get("/api/gallery").json()
    body = png((40, 120, 250))
    for condition in ("", "&camera=10", "&camera=1&camera=2&since=2026-11-28T08:30", "&until=2026-11-28T09:00"):
        answers = [one.post(f"/api/search?k=3{condition}", content=body).json() for one in (ours, theirs)]
        hits, expected = ([(hit["path"], hit["camera"]) for hit in answer["hits"]] for answer in answers)
        assert hits == expected
    assert ours.post("/api/search?camera=11", content=body).status_code == 422
    answer = ours.post("/api/search?k=1", content=body).json()
    row = answer["hits"][0]["row"]
    assert ours.get(f"/api/images/{row}").headers["content-type"] == "image/jpeg"
    assert ours.get("/api/images/0").status_code == 404
    mark = {"search": answer["search"], "row": row, "mark": "right"}
    assert ours.post("/api/feedback", json=mark).status_code == 204
    assert served.place in desk.feedback.read_text()
