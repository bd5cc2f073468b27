"""The page of `vireid look`: pairs, clusters, outliers, changes and worst queries of a round, with thumbnails."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from clustering.dbscan import OUTLIER
from models.modality import Modality, PerModality
from pipeline.evaluation.worst_queries import WorstQuery
from pipeline.reports.cluster_figures import spread
from pipeline.reports.html import page_end, page_start, write_page
from pipeline.reports.label_changes import Regrouping
from pipeline.reports.look import Look
from pipeline.reports.quality import MEANING, SIGNS
from pipeline.reports.thumbnails import Thumbnails

LIMIT = 8_500_000
"""Bytes of all thumbnails; a page stays below 10 MB."""

STRIP = 8
_SURE, _UNSURE = 80, 120
_UNMATCHED, _LARGEST, _OUTLIERS, _CHANGES, _FOUND = 30, 10, 48, 12, 5
_STYLE = "look_page.css"

Shown = tuple[str, str, str]
"""An image: its path, the text on it, and its mark."""


def write_look(look: Look, file: Path) -> tuple[int, int]:
    """Write the page; returns the numbers of images that cannot be read, and of those omitted because of the limit.

    Raises:
        ConfigError: The file cannot be written, or exists and is not a page.

    Cost: at most 5,000 thumbnails, each decoded once: 4 ms and 1.5 KB an image.
    """
    page = _Page(look)
    body = "".join(page.body())
    write_page(file, [*page.top(), body, page_end()])
    return len(page.thumbnails.missing), page.thumbnails.omitted


class _Page:
    """One page in the making. Each section collects its images before it is written, so that they decode at once."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.thumbnails = Thumbnails(look.base, look.reading, LIMIT)

    def top(self) -> Iterator[str]:
        look = self.look
        style = (resources.files(__package__) / _STYLE).read_text(encoding="utf-8")
        yield page_start(f"Clusters and pairs of {look.run.name}, round {look.number}", style)
        if look.synthetic:
            yield '<p class="synthetic">synthetic images: no result on photographs</p>\n'
        labels, pairs = look.labels.labels, look.pairs
        facts = [f"{len(some):,} {one} images in {len(look.sizes[one])} clusters" for one, some in labels.items()]
        yield f"<p>{escape(look.run.data)}: {', '.join(facts)}; {len(pairs)} pairs."
        if look.majority is not None:
            wrong = sum(look.is_wrong(place) is True for place in range(len(pairs)))
            yield f" {wrong} of them join two people, by the person on most images of each cluster."
        yield "</p>\n<nav>"
        sections = ("pairs", "unmatched", "largest", "outliers", "changes", "queries")
        yield "".join(f'<a href="#{name}">{name}</a>' for name in sections)
        yield "</nav>\n"
        for note in (*look.notes, *self._left_out()):
            yield f'<p class="note">{escape(note[:1].upper() + note[1:])}.</p>\n'
        yield from self._quality()

    def body(self) -> Iterator[str]:
        yield from self._pairs()
        yield from self._unmatched()
        yield from self._largest()
        yield from self._outliers()
        yield from self._changes()
        yield from self._queries()

    def _left_out(self) -> Iterator[str]:
        if self.thumbnails.missing:
            first = min(self.thumbnails.missing)
            yield (
                f"{len(self.thumbnails.missing)} images are not in {self.look.base} any more or cannot be read, the "
                f"first is {first}: they are grey. --data, and --root for a manifest, name the present folder"
            )
        if self.thumbnails.omitted:
            yield f"{self.thumbnails.omitted} images are omitted, because the page would exceed 10 MB"

    def _quality(self) -> Iterator[str]:
        known = [(sign, sign.text(self.look.quality)) for sign in SIGNS if sign.text(self.look.quality)]
        if not known:
            return
        yield '<div class="wide"><table>\n'
        for sign, text in known:
            title, meaning = escape(sign.title), escape(sign.meaning)
            yield f'<tr><th scope="row">{title}</th><td>{text}</td><td>{meaning}</td></tr>\n'
        yield f'</table></div>\n<p class="note">{escape(MEANING)}</p>\n'

    def _pairs(self) -> Iterator[str]:
        look = self.look
        order = look.order
        shown = order
        if len(order) > _UNSURE + _SURE:
            rest = order[_UNSURE:]
            shown = order[:_UNSURE] + [rest[place] for place in spread(len(rest), _SURE)]
        yield _heading("pairs", "Pairs, from the least to the most certain one")
        yield f"<p>{len(order)} pairs"
        if len(shown) < len(order):
            yield f"; shown are the {_UNSURE} least certain ones and {_SURE}, evenly spaced, of the others"
        yield (
            ". A pair is certain if its margin is large: the lead of its similarity over that of the next best "
            "infrared cluster (first number) and visible cluster (second). Each row has "
            f"at most {STRIP} images, evenly spaced from the most to the least typical one."
        )
        if look.majority is not None:
            yield " Wrong pairs, and images of another person than most of their cluster, are marked in orange."
        yield "</p>\n"
        strips = [
            PerModality(
                self._cluster(Modality.VISIBLE, int(look.pairs.visible[place])),
                self._cluster(Modality.INFRARED, int(look.pairs.infrared[place])),
            )
            for place in shown
        ]
        self._load(images for both in strips for _, images in both)
        for place, both in zip(shown, strips, strict=True):
            pairs = look.pairs
            margins = f"{pairs.visible_margin[place]:+.2f} / {pairs.infrared_margin[place]:+.2f}"
            text = f"similarity {pairs.similarity[place]:.2f}, margin {margins}"
            wrong = ' <b class="wrong">two people</b>' if look.is_wrong(place) else ""
            yield f'<div class="entry"><p>{text}{wrong}</p><div class="pair">'
            yield "".join(self._strip(caption, images) for caption, images in both)
            yield "</div></div>\n"

    def _unmatched(self) -> Iterator[str]:
        yield _heading("unmatched", "Clusters without a partner")
        for modality, clusters in self.look.unmatched.items():
            yield from self._clusters(modality, clusters, _UNMATCHED, "without a partner")

    def _largest(self) -> Iterator[str]:
        yield _heading("largest", "Largest clusters")
        yield "<p>A cluster far larger than the others often holds several people.</p>\n"
        for modality, sizes in self.look.sizes.items():
            largest = np.argsort(-sizes, kind="stable")
            yield from self._clusters(modality, largest.tolist(), _LARGEST, "")

    def _clusters(self, modality: Modality, clusters: Sequence[int], most: int, kind: str) -> Iterator[str]:
        shown = clusters[:most]
        if kind:
            limit = f"; the {most} largest are shown" if len(shown) < len(clusters) else ""
            yield f"<p>{modality} clusters {kind}: {len(clusters)}{limit}.</p>\n"
        strips = [self._cluster(modality, one) for one in shown]
        self._load(images for _, images in strips)
        parts = [f'<div class="entry">{self._strip(caption, images)}</div>\n' for caption, images in strips]
        yield f'<div class="grid">{"".join(parts)}</div>\n'

    def _outliers(self) -> Iterator[str]:
        yield _heading("outliers", "Outliers")
        yield "<p>Images without a cluster; the first ones are the most similar to a cluster's prototype.</p>\n"
        for modality, labels in self.look.labels.labels.items():
            rows = np.flatnonzero(labels == OUTLIER)
            similarity = self.look.similarity[modality][rows]
            rows = rows[np.argsort(-similarity, kind="stable")][spread(len(rows), _OUTLIERS)]
            total = int((labels == OUTLIER).sum())
            images = [self._image(modality, int(row)) for row in rows]
            self._load([images])
            limit = f", {len(rows)} evenly spaced ones are shown" if len(rows) < total else ""
            yield f'<div class="entry">{self._strip(f"{total} {modality} outliers{limit}", images)}</div>\n'

    def _changes(self) -> Iterator[str]:
        look, changes = self.look, self.look.changes
        yield _heading("changes", f"Changes since round {look.number - 1}")
        if changes is None:
            yield "<p>There are no labels of the round before.</p>\n"
            return
        for modality in Modality:
            yield f"<p>{changes.joined[modality]} {modality} outliers joined a cluster, {changes.left[modality]} left."
            splits, merges = changes.splits[modality], changes.merges[modality]
            yield f" {len(splits)} clusters were split, {len(merges)} were merged from several"
            yield f"; at most {_CHANGES} of each are shown.</p>\n"
            for one in splits[:_CHANGES]:
                yield from self._split(modality, one)
            for one in merges[:_CHANGES]:
                parts = ", ".join(map(str, one.parts))
                yield from self._entry(
                    f"{modality} {parts} of round {look.number - 1} became one", [(modality, one.whole)]
                )
        yield f"<p>{len(changes.repaired)} visible clusters have another partner than before.</p>\n"
        for change in changes.repaired[:_CHANGES]:
            before = "none" if change.before is None else f"infrared {change.before} in round {look.number - 1}"
            now: list[tuple[Modality, int]] = [(Modality.VISIBLE, change.visible)]
            now += [] if change.now is None else [(Modality.INFRARED, change.now)]
            after = "none now" if change.now is None else f"infrared {change.now} now"
            yield from self._entry(f"partner of visible {change.visible}: {before}, {after}", now)

    def _split(self, modality: Modality, split: Regrouping) -> Iterator[str]:
        clusters = [(modality, part) for part in split.parts]
        yield from self._entry(
            f"{modality} {split.whole} of round {self.look.number - 1} became {len(clusters)}", clusters
        )

    def _entry(self, text: str, clusters: Sequence[tuple[Modality, int]]) -> Iterator[str]:
        strips = [self._cluster(*one) for one in clusters[:3]]
        self._load(images for _, images in strips)
        parts = "".join(self._strip(caption, images) for caption, images in strips)
        yield f'<div class="entry"><p>{escape(text)}</p><div class="pair">{parts}</div></div>\n'

    def _queries(self) -> Iterator[str]:
        yield _heading("queries", "Worst queries")
        found = self.look.queries
        if found is None:
            yield "<p>This round was not evaluated, or the data set has no test images.</p>\n"
            return
        yield f"<p>The {len(found.worst)} of {found.queries:,} {found.modality} queries of {escape(found.search)} "
        yield f"whose person is ranked last: the query, the first {_FOUND} images, and the first image of its person, "
        yield "in blue.</p>\n"
        strips = [self._query(query) for query in found.worst]
        self._load(strips)
        for query, images in zip(found.worst, strips, strict=True):
            text = f"{escape(query.path)}: rank {query.rank}, average precision {100 * query.average_precision:.1f} %"
            yield f'<div class="entry">{self._strip("", images, text)}</div>\n'

    def _query(self, query: WorstQuery) -> list[Shown]:
        first = [
            (path, path, "right" if right else "wrong") for path, right in zip(query.found, query.right, strict=True)
        ]
        match = (query.match, f"{query.match}, rank {query.rank}", "right")
        return [(query.path, query.path, ""), ("", "", ""), *first[:_FOUND], ("", "", ""), match]

    def _cluster(self, modality: Modality, cluster: int) -> tuple[str, list[Shown]]:
        rows = self.look.typical(modality, cluster)
        shown = [rows[place] for place in spread(len(rows), STRIP)]
        count = f"{len(rows)} images" if len(rows) == len(shown) else f"{len(shown)} of {len(rows)} images"
        majority = self.look.majority
        person = "" if majority is None else f", person {majority[modality][cluster]}"
        caption = f"{modality} {cluster}: {count}{person}"
        return caption, [self._image(modality, row, cluster) for row in shown]

    def _image(self, modality: Modality, row: int, cluster: int | None = None) -> Shown:
        look = self.look
        path = look.paths[modality][row]
        text = f"{path}, {look.similarity[modality][row]:.2f}"
        odd = False
        if look.people is not None and look.majority is not None:
            person = look.people[modality][row]
            text += f", person {person}"
            odd = cluster is not None and bool(person != look.majority[modality][cluster])
        return path, text, "odd" if odd else ""

    def _load(self, strips: Iterable[Sequence[Shown]]) -> None:
        self.thumbnails.load([path for images in strips for path, _, _ in images if path])

    def _strip(self, caption: str, images: Sequence[Shown], text: str = "") -> str:
        parts = "".join(self._picture(*image) for image in images)
        title = f"<span>{escape(caption)}</span>" if caption else f"<p>{text}</p>"
        return f'<div class="strip">{title}<div class="row">{parts}</div></div>'

    def _picture(self, path: str, text: str, mark: str) -> str:
        if not path:
            return '<span class="gap"></span>'
        name = escape(text)
        kind = f' class="{mark}"' if mark else ""
        address = self.thumbnails.address(path)
        if not address:
            reason = "not shown" if address is None else "not there"
            return f'<span class="lost {mark}" title="{name}">{reason}</span>'
        return f'<img{kind} loading="lazy" decoding="async" src="{address}" alt="{name}" title="{name}">'


def _heading(name: str, title: str) -> str:
    return f'<h2 id="{name}">{escape(title)}</h2>\n'
