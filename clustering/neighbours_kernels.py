"""Compiled loops of the neighbour search, and the inner product that decides ties and weights.

`row_dot` gives the same bits on every machine and device. Products of two float32 numbers are exact in float64, so only
the order of the additions matters: place p belongs to lane p mod LANES, each lane is summed from the first place to the
last, then the upper half of the lanes is added to the lower half until one is left. `arithmetic_torch` holds the twin.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from clustering.parallel import kernel

Rows = Float32[np.ndarray, "n d"]  # unit rows
Ranks = Int32[np.ndarray, "n k"]
Similarities = Float32[np.ndarray, "n k"]
Lanes = Float64[np.ndarray, "lanes"]

LANES = 128  # wide enough for vector registers here and for few steps on a GPU


@kernel
def row_dot(rows: Rows, first: int, second: int, lanes: Lanes) -> float:
    """Inner product of two rows in float64: symmetric, and equal for equal rows. `lanes` is scratch, LANES long."""
    width = rows.shape[1]
    for lane in range(LANES):
        lanes[lane] = 0.0
    whole = width - width % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(rows[first, start + lane]) * np.float64(rows[second, start + lane])
    for lane in range(width - whole):
        lanes[lane] += np.float64(rows[first, whole + lane]) * np.float64(rows[second, whole + lane])
    half = LANES
    while half > 1:
        half //= 2
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
    total: float = lanes[0]
    return total


@kernel
def _insert(
    images: Int64[np.ndarray, " w"], scores: Float64[np.ndarray, " w"], count: int, image: int, score: float
) -> int:
    """Insert an image into a list of the best, most similar first, ties by index; return the list's new size."""
    hole = count
    while hole > 0 and (scores[hole - 1] < score or (scores[hole - 1] == score and images[hole - 1] > image)):
        if hole < len(images):
            images[hole], scores[hole] = images[hole - 1], scores[hole - 1]
        hole -= 1
    if hole < len(images):
        images[hole], scores[hole] = image, score
    return min(count + 1, len(images))


@kernel
def _write_list(
    features: Rows,
    image: int,
    others: Int64[np.ndarray, " w"],
    scores: Float64[np.ndarray, " w"],
    lanes: Lanes,
    ranks: Ranks,
    similarities: Similarities,
) -> None:
    """Write an image's list: itself, then the best others."""
    ranks[image, 0] = image
    similarities[image, 0] = row_dot(features, image, image, lanes)
    for place in range(ranks.shape[1] - 1):
        ranks[image, place + 1] = others[place]
        similarities[image, place + 1] = scores[place]


@kernel
def order_candidates(
    features: Rows,
    found: Int64[np.ndarray, "b w"],
    found_similarities: Float32[np.ndarray, "b w"],
    first_image: int,
    tolerance: float,
    ranks: Ranks,
    similarities: Similarities,
    settled: Bool[np.ndarray, " n"],
    start: int,
    stop: int,
) -> None:
    """Write `ranks` for queries start..stop; `settled` is false if a tie may continue beyond the candidates.

    Candidates closer than `tolerance` to each other are scored again: the search rounds differently in each block.
    """
    width = found.shape[1]
    others = np.empty(width, np.int64)
    scores = np.empty(width, np.float64)
    lanes = np.empty(LANES, np.float64)
    wanted = ranks.shape[1] - 1
    for query in range(start, stop):
        image = first_image + query
        count = 0
        close = False
        for place in range(width):
            if found[query, place] != image:
                others[count] = found[query, place]
                scores[count] = found_similarities[query, place]
                close = close or (count > 0 and scores[count - 1] - scores[count] <= tolerance)
                count += 1
        complete = width == len(features)
        settled[image] = complete or wanted == 0 or scores[wanted - 1] - scores[count - 1] > tolerance
        if close:
            for place in range(count):
                _insert(others, scores, place, others[place], row_dot(features, image, others[place], lanes))
        _write_list(features, image, others, scores, lanes, ranks, similarities)


@kernel
def choose_among_ties(
    features: Rows,
    images: Int64[np.ndarray, " b"],
    all_similarities: Float32[np.ndarray, "b targets"],
    first_target: int,
    least: Float32[np.ndarray, " b"],
    ranks: Ranks,
    similarities: Similarities,
    start: int,
    stop: int,
) -> None:
    """Write `ranks` for images[start:stop]: every target with a similarity of at least `least` is scored again.

    Targets are the images from `first_target` on, one a column of `all_similarities`.
    """
    wanted = ranks.shape[1] - 1
    others = np.empty(wanted, np.int64)
    scores = np.empty(wanted, np.float64)
    lanes = np.empty(LANES, np.float64)
    for query in range(start, stop):
        image = images[query]
        count = 0
        for column in range(all_similarities.shape[1]):
            other = first_target + column
            if other != image and all_similarities[query, column] >= least[query]:
                count = _insert(others, scores, count, other, row_dot(features, image, other, lanes))
        _write_list(features, image, others, scores, lanes, ranks, similarities)
