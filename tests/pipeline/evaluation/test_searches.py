"""The searches of each data set: queries, gallery, what is excluded, how ranks count, and examples worked by hand."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.config.datasets import OPTIONS
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import Samples, query_modality
from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules
from pipeline.evaluation.searches import DIRECTIONS, plan_search, possible_directions, samples_of
from tests.pipeline.evaluation.layout import small_layout, sysu_layout, trials_of

TO_VISIBLE, TO_INFRARED = "infrared_to_visible", "visible_to_infrared"


@dataclass
class Bank:
    vectors: np.ndarray


def seen(*images, **roles):
    """Samples from `person/camera`, one entry an image."""
    pairs = [tuple(map(int, image.split("/"))) for image in images]
    people, cameras = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    return Samples(people, cameras, **{name: np.array(role) for name, role in roles.items()})


def measured(plan, samples, similarity, **options):
    """The report of a plan where row q and column g of `similarity` are query q and gallery image g."""
    query = plan[0].search.query
    similarity = np.array(similarity, dtype=np.float64)
    # One axis a gallery image: the inner product of a query's row with it is the similarity asked for.
    banks = {query: Bank(similarity), query.other: Bank(np.eye(similarity.shape[1]))}
    features = PerModality.build(lambda modality: banks[modality])
    return evaluate_features(features, samples, [plan], normalise=False, **options)[0].report


# ---- worked examples ----


def test_a_camera_that_is_hidden_costs_the_matches_that_it_holds():
    # The query is person 1 in camera 3. Row 1/2 is excluded; then 2 .8, 2 .7, 1 .6, 3 .5: people 2 1 3, the match is
    # the second person and the third image.
    samples = PerModality(seen("1/1", "1/2", "2/1", "2/5", "3/4"), seen("1/3"))
    (plan,) = plan_search("sysu/all", samples, draws=GalleryDraws(trials=1))
    report = measured(plan, samples, [[0.6, 0.9, 0.8, 0.7, 0.5]])
    assert report.trials[0].cmc == (0.0, *[1.0] * 19)
    assert (report.mean.map, report.mean.minp) == pytest.approx((1 / 3, 1 / 3), abs=1e-15)
    assert report.hidden_pairs == 1
    # From camera 6 nothing is excluded: 1 2 2 1 3. AP (1/1 + 2/4) / 2, the last match is fourth: INP 2/4.
    dark = replace(samples, infrared=seen("1/6"))
    report = measured(plan_search("sysu/all", dark)[0], dark, [[0.6, 0.9, 0.8, 0.7, 0.5]])
    assert (report.mean.r1, report.mean.map, report.mean.minp) == (1.0, 3 / 4, 1 / 2)


def test_queries_without_a_match_are_counted_and_in_no_mean():
    samples = PerModality(seen("1/1", "2/1", "2/2", "3/1"), seen("1/6", "2/3", "9/6"))
    (plan,) = plan_search("sysu/all", samples, draws=GalleryDraws(trials=1))
    # Person 1 sees 2 2 1 3: rank 2, AP 1/3. Person 2 does not see 2/2, and sees 3 2 1: rank 2, AP 1/2.
    report = measured(plan, samples, [[0.5, 0.9, 0.8, 0.1], [0.2, 0.4, 0.9, 0.6], [0.1, 0.2, 0.3, 0.4]])
    assert report.trials[0].cmc[:2] == (0.0, 1.0)
    assert (report.mean.map, report.mean.minp) == pytest.approx((5 / 12, 5 / 12), abs=1e-15)
    assert (report.queries, report.valid_queries) == (3, 2)
    assert report.hidden_pairs == 1


def test_llcm_hides_the_query_person_in_the_query_camera_and_nobody_else():
    samples = PerModality(seen("1/1", "1/4", "2/1", "3/1"), seen("1/1"))
    (plan,) = plan_search(f"llcm/{TO_VISIBLE}", samples, draws=GalleryDraws(trials=1))
    # Row 1/1 is excluded: 2 .7, 3 .5, 1 .3. Hiding the whole camera would leave the match alone.
    report = measured(plan, samples, [[0.9, 0.3, 0.7, 0.5]])
    assert report.trials[0].cmc[:3] == (0.0, 0.0, 1.0)
    assert report.mean.map == pytest.approx(1 / 3, abs=1e-15)
    assert report.hidden_pairs == 1


@pytest.mark.parametrize(("people", "rank", "precision"), [("211", 2, 7 / 12), ("121", 1, 5 / 6)])
def test_equal_similarities_keep_the_order_of_the_gallery(people, rank, precision):
    samples = PerModality(seen(*(f"{person}/{place}" for place, person in enumerate(people, 1))), seen("1/9"))
    (plan,) = plan_search(f"pairs/{TO_VISIBLE}", samples)
    report = measured(plan, samples, [[0.5, 0.5, 0.5]])
    # Matches at positions 2 and 3, or 1 and 3: the last is third, INP 2/3.
    assert report.trials[0].cmc.index(1.0) + 1 == rank
    assert (report.mean.map, report.mean.minp) == pytest.approx((precision, 2 / 3), abs=1e-15)


def test_gallery_images_that_look_the_same_are_ties_wherever_they_stand_in_the_matrix():
    # Person p is at place p of a gallery of one image, repeated.
    people = range(1, 302)
    tables = sysu_layout({(person, camera): 1 for person in people for camera in (1, 6)})
    generator = np.random.default_rng(0)
    one = generator.standard_normal(2048, dtype=np.float32)
    queries = generator.standard_normal((len(people), 2048), dtype=np.float32)
    features = PerModality(Bank(np.tile(one, (len(people), 1))), Bank(queries))
    (plan,) = trials_of(tables, "sysu/all", trials=1)
    (result,) = evaluate_features(features, samples_of(tables), [plan], keep_queries=True)
    assert result.queries[0].ranks.rank.tolist() == list(people)


def test_another_search_beside_it_changes_no_number_of_a_search():
    tables = small_layout(people=30, images=4)
    generator = np.random.default_rng(1)
    # Differences in the last digit that float32 holds: near-ties everywhere.
    one = generator.standard_normal(512)
    features = tables.people.map(
        lambda truth: Bank((one + 1e-7 * generator.standard_normal((len(truth), 512))).astype(np.float32))
    )
    every, indoor = (trials_of(tables, search, trials=3) for search in ("sysu/all", "sysu/indoor"))
    together = evaluate_features(features, samples_of(tables), [*every, *indoor])
    apart = [evaluate_features(features, samples_of(tables), plans)[0] for plans in (every, indoor)]
    assert [result.report for result in together] == [result.report for result in apart]


# ---- SYSU-MM01 ----


def test_every_draw_with_every_number_of_shots_is_a_search_in_the_order_asked_for():
    permutations = {
        (camera, person): np.tile(np.arange(1, 13), (10, 1)) for camera in (1, 2, 4, 5) for person in (1, 2)
    }
    tables = sysu_layout({(person, camera): 12 for person in (1, 2) for camera in range(1, 7)})
    plans = trials_of(tables, "sysu/all", draws=("agw", "official"), shots=(1, 10), permutations=permutations)
    assert [(plan[0].search.name, plan[0].search.draw, plan[0].search.shots) for plan in plans] == [
        ("sysu/all/1-shot/agw", "agw", 1),
        ("sysu/all/10-shot/agw", "agw", 10),
        ("sysu/all/1-shot/official", "official", 1),
        ("sysu/all/10-shot/official", "official", 10),
    ]
    # Two people in four cameras.
    assert [len(plan) for plan in plans] == [10, 10, 10, 10]
    assert [{len(trial.gallery) for trial in plan} for plan in plans] == [{8}, {80}, {8}, {80}]
    cameras, people = tables.images.visible.cameras, tables.people.visible.ids
    by_person, by_camera = plans[0][0].gallery, plans[2][0].gallery
    assert people[by_person].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert cameras[by_camera].tolist() == [1, 1, 2, 2, 4, 4, 5, 5]
    assert people[by_camera].tolist() == [1, 2, 1, 2, 1, 2, 1, 2]


def test_a_camera_three_query_misses_ten_images_a_person_with_ten_shots():
    tables = sysu_layout({(person, camera): 12 for person in (1, 2, 3) for camera in range(1, 7)})
    (plan,) = trials_of(tables, "sysu/indoor", trials=1, shots=(10,))
    excluded = plan[0].excluded(samples_of(tables)).sum(axis=1)
    assert set(excluded[tables.images.infrared.cameras == 3]) == {30}
    assert set(excluded[tables.images.infrared.cameras == 6]) == {0}


def test_validation_looks_for_camera_three_in_cameras_four_and_five():
    # Camera 5 never saw the last person: 2 x 4 - 1 folders, as 195 of 2 x 99 in the published split.
    layout = {(person, camera): 3 for person in (1, 2, 3, 4) for camera in range(1, 7)}
    del layout[4, 5]
    tables = sysu_layout(layout)
    (plan,) = trials_of(tables, "sysu/val")
    assert len(plan) == 10
    assert plan[0].search.name == "sysu/val/1-shot/agw"
    samples = samples_of(tables)
    for trial in plan:
        assert len(trial.query) == 12
        assert set(tables.images.infrared.cameras[trial.query]) == {3}
        assert tables.images.visible.cameras[trial.gallery].tolist() == [4, 5, 4, 5, 4, 5, 4]
        assert not trial.excluded(samples).any(), "no gallery camera shares the room of camera 3"


def test_the_official_draw_without_its_file_says_where_to_get_it():
    with pytest.raises(DataError, match=r"rand_perm_cam\.mat") as caught:
        trials_of(small_layout(), "sysu/all", draws=("official",))
    assert "wuancong/SYSU-MM01" in caught.value.hint
    assert "--permutations" in caught.value.hint


# ---- RegDB ----

REGDB = PerModality(
    seen(*(f"{person}/1" for person in (4, 4, 2, 2, 7, 7))), seen(*(f"{person}/1" for person in (7, 2, 4, 4)))
)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_regdb_looks_for_all_images_in_all_others_and_hides_none(direction):
    (plan,) = plan_search(f"regdb/{direction}", REGDB, split=3)
    (trial,) = plan
    assert trial.name.startswith(f"regdb/split-3/{direction}")
    assert (trial.number, trial.search.direction) == (3, direction)
    assert trial.search.rank_by == "image"
    assert (trial.search.draw, trial.search.shots) == (None, None)
    query = query_modality(direction)
    assert trial.query.tolist() == list(range(len(REGDB[query])))
    # Rows as they come: their order decides ties, and nobody sorts them.
    assert trial.gallery.tolist() == list(range(len(REGDB[query.other])))
    # The same camera number on both sides, and nothing is excluded all the same.
    assert not trial.excluded(REGDB).any()


def test_regdb_counts_images_before_the_match_and_not_people():
    # Query person 7; gallery 4 4 2 2 7 7 in falling similarity: two other people, four other images.
    (plan,) = plan_search(f"regdb/{TO_VISIBLE}", replace(REGDB, infrared=seen("7/1")))
    falling = [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]
    report = measured(plan, replace(REGDB, infrared=seen("7/1")), falling)
    assert report.trials[0].cmc.index(1.0) + 1 == 5
    (by_person,) = plan_search(f"pairs/{TO_VISIBLE}", REGDB, rules=GalleryRules(exclude="none"))
    person = measured([replace(by_person[0], query=np.array([0]))], replace(REGDB, infrared=seen("7/1")), falling)
    assert person.trials[0].cmc.index(1.0) + 1 == 3


def test_a_split_of_regdb_that_nobody_named_says_that_it_is_one():
    assert plan_search(f"regdb/{TO_VISIBLE}", REGDB)[0][0].search.name == f"regdb/one-split/{TO_VISIBLE}"


# ---- LLCM ----

# Person 2 is in one camera, the same in both modalities; person 3 in visible images alone.
LLCM = PerModality(
    seen("1/1", "1/1", "1/4", "2/1", "2/1", "2/1", "3/2"),
    seen("1/1", "1/2", "1/2", "2/1", "2/1"),
)


def test_llcm_infrared_queries_see_one_visible_image_a_person_and_camera():
    (plan,) = plan_search(f"llcm/{TO_VISIBLE}", LLCM)
    assert [trial.number for trial in plan] == list(range(10))
    assert plan[0].search.name == f"llcm/{TO_VISIBLE}/1-shot/agw"
    folders = [[0, 1], [2], [3, 4, 5], [6]]
    for trial in plan:
        assert trial.query.tolist() == [0, 1, 2, 3, 4]
        generator = random.Random(trial.number)
        assert trial.gallery.tolist() == [generator.choice(rows) for rows in folders]
        # Infrared 1/1 does not see visible 1/1, both infrared 2/1 do not see 2/1; other people in camera 1 are seen.
        assert trial.excluded(LLCM).astype(int).tolist() == [
            [1, 0, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 1, 0],
        ]


def test_llcm_visible_queries_see_one_infrared_image_a_person_and_camera():
    (plan,) = plan_search(f"llcm/{TO_INFRARED}", LLCM)
    folders = [[0], [1, 2], [3, 4]]
    for trial in plan:
        assert trial.search.query is Modality.VISIBLE
        assert trial.query.tolist() == list(range(7))
        generator = random.Random(trial.number)
        assert trial.gallery.tolist() == [generator.choice(rows) for rows in folders]
        assert trial.excluded(LLCM).sum(axis=1).tolist() == [1, 1, 0, 1, 1, 1, 0]


def perfect(samples):
    return samples.map(lambda one: Bank(np.eye(10, dtype=np.float32)[one.people]))


def test_llcm_counts_queries_whose_person_is_in_no_other_camera():
    infrared, visible = (
        evaluate_features(perfect(LLCM), LLCM, plan_search(f"llcm/{direction}", LLCM))[0].report
        for direction in DIRECTIONS
    )
    # Infrared: person 1 is found, in camera 4 or 1; person 2 only where she may not be.
    assert (infrared.queries, infrared.valid_queries, infrared.gallery, infrared.hidden_pairs) == (5, 3, 4, 3)
    # Visible: person 1 three times; person 2 thrice invalid; person 3 has no infrared image.
    assert (visible.queries, visible.valid_queries, visible.gallery, visible.hidden_pairs) == (7, 3, 3, 5)
    assert infrared.mean.r1 == visible.mean.r1 == infrared.mean.minp == visible.mean.minp == 1.0


def test_exchanging_the_modalities_exchanges_the_directions_of_llcm():
    generator = np.random.default_rng(2)
    features = LLCM.map(lambda one: Bank(generator.standard_normal((len(one), 4)).astype(np.float32)))

    def numbers(features, samples, direction):
        (result,) = evaluate_features(features, samples, plan_search(f"llcm/{direction}", samples))
        return result.report.trials

    exchanged = PerModality(features.infrared, features.visible), PerModality(LLCM.infrared, LLCM.visible)
    assert numbers(features, LLCM, TO_VISIBLE) == numbers(*exchanged, TO_INFRARED)
    assert numbers(features, LLCM, TO_INFRARED) == numbers(*exchanged, TO_VISIBLE)
    assert numbers(features, LLCM, TO_INFRARED) != numbers(features, LLCM, TO_VISIBLE)


# ---- manifests and pairs ----

SHARED = PerModality(seen("1/1", "1/1", "1/2", "2/2"), seen("1/2", "1/3", "2/2", "2/4"))


def test_a_manifest_is_one_trial_with_every_image_unless_it_says_otherwise():
    (plan,) = plan_search(f"manifest/{TO_VISIBLE}", SHARED, site="site-a")
    (trial,) = plan
    assert trial.search.name == f"manifest/site-a/{TO_VISIBLE}/full"
    assert (trial.search.draw, trial.search.shots, trial.search.rank_by) == (None, None, "person")
    assert (trial.query.tolist(), trial.gallery.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3])


def test_the_own_camera_is_hidden_by_default_if_any_camera_has_both_modalities():
    for direction in DIRECTIONS:
        (plan,) = plan_search(f"manifest/{direction}", SHARED)
        assert plan[0].search.exclude == "same_person_same_camera"
    # Infrared 1/2 does not see visible 1/2, infrared 2/2 not visible 2/2.
    (plan,) = plan_search(f"pairs/{TO_VISIBLE}", SHARED)
    assert np.argwhere(plan[0].excluded(SHARED)).tolist() == [[0, 2], [2, 3]]
    apart = PerModality(SHARED.visible, replace(SHARED.infrared, cameras=SHARED.infrared.cameras + 10))
    (plan,) = plan_search(f"pairs/{TO_VISIBLE}", apart)
    assert plan[0].search.exclude == "none"
    assert not plan[0].excluded(apart).any()


@pytest.mark.parametrize(
    ("exclude", "excluded"),
    [
        ("none", []),
        ("same_person_same_camera", [[0, 2], [2, 3]]),
        # Infrared rows 0 and 2 are of camera 2, as visible rows 2 and 3 are.
        ("same_camera", [[0, 2], [0, 3], [2, 2], [2, 3]]),
    ],
)
def test_what_is_hidden_is_a_rule_of_the_manifest(exclude, excluded):
    (plan,) = plan_search(f"manifest/{TO_VISIBLE}", SHARED, rules=GalleryRules(exclude=exclude))
    assert plan[0].search.exclude == exclude
    assert np.argwhere(plan[0].excluded(SHARED)).tolist() == excluded


def test_one_image_a_person_and_camera_is_drawn_as_often_as_there_are_trials():
    rules = GalleryRules(gallery="one_per_person_camera", rank_by="image")
    (plan,) = plan_search(f"manifest/{TO_VISIBLE}", SHARED, rules=rules, site="site-a")
    assert len(plan) == 10
    search = plan[0].search
    assert search.name == f"manifest/site-a/{TO_VISIBLE}/one_per_person_camera"
    assert (search.draw, search.shots, search.rank_by) == ("agw", 1, "image")
    for trial in plan:
        generator = random.Random(trial.number)
        assert trial.gallery.tolist() == [generator.choice(rows) for rows in ([0, 1], [2], [3])]
    assert {int(trial.gallery[0]) for trial in plan} == {0, 1}, "the trials differ"
    assert len(plan_search(f"manifest/{TO_VISIBLE}", SHARED, rules=rules, draws=GalleryDraws(trials=4))[0]) == 4


@pytest.mark.parametrize("gallery", ["full", "one_per_person_camera"])
def test_only_queries_ask_and_only_gallery_images_answer(gallery):
    roles = PerModality(
        seen("1/1", "1/1", "1/2", "2/2", query=[False] * 3 + [True], gallery=[False, True, True, True]),
        seen("1/2", "1/3", "2/2", "2/4", query=[True, True, False, False], gallery=[False, False, True, True]),
    )
    rules = GalleryRules(exclude="none", gallery=gallery)
    (plan,) = plan_search(f"manifest/{TO_VISIBLE}", roles, rules=rules)
    for trial in plan:
        assert (trial.query.tolist(), trial.gallery.tolist()) == ([0, 1], [1, 2, 3])
    (plan,) = plan_search(f"manifest/{TO_INFRARED}", roles, rules=rules)
    for trial in plan:
        assert (trial.query.tolist(), trial.gallery.tolist()) == ([3], [2, 3])


def test_a_direction_needs_queries_of_one_modality_and_gallery_images_of_the_other():
    assert possible_directions(SHARED) == DIRECTIONS
    no, yes = [False] * 4, [True] * 4

    def with_roles(visible, infrared):
        return PerModality(
            replace(SHARED.visible, query=np.array(visible[0]), gallery=np.array(visible[1])),
            replace(SHARED.infrared, query=np.array(infrared[0]), gallery=np.array(infrared[1])),
        )

    assert possible_directions(with_roles((no, yes), (yes, no))) == (TO_VISIBLE,)
    assert possible_directions(with_roles((yes, no), (no, yes))) == (TO_INFRARED,)
    # Visible images alone ask and answer: there is nothing to cross.
    assert possible_directions(with_roles((yes, yes), (no, no))) == ()


# ---- what holds everywhere ----

EVERY = [search for options in OPTIONS for search in options.searches]


@pytest.mark.parametrize("search", EVERY)
def test_a_query_of_an_absent_person_changes_no_number_and_is_counted(search):
    tables = small_layout(people=6, images=2)
    samples = samples_of(tables)
    query = plan_search(search, samples)[0][0].search.query
    generator = np.random.default_rng(3)
    features = samples.map(lambda one: Bank(generator.standard_normal((len(one), 8)).astype(np.float32)))
    more = replace(
        samples[query],
        people=np.append(samples[query].people, 99),
        cameras=np.append(samples[query].cameras, 6),
        paths=(*samples[query].paths, "cam6/0099/0001.jpg"),
    )
    longer = Bank(np.concatenate([features[query].vectors, np.ones((1, 8), np.float32)]))
    others = samples[query.other], features[query.other]
    with_one_more = PerModality.build(lambda modality: more if modality is query else others[0])
    more_features = PerModality.build(lambda modality: longer if modality is query else others[1])
    (before,) = evaluate_features(features, samples, plan_search(search, samples))
    (after,) = evaluate_features(more_features, with_one_more, plan_search(search, with_one_more))
    assert after.report.queries == before.report.queries + 1
    assert after.report.valid_queries == before.report.valid_queries
    assert (after.report.trials, after.report.chance_r1) == (before.report.trials, before.report.chance_r1)


def test_people_and_images_are_counted_alike_where_everybody_has_one_gallery_image():
    samples = PerModality(seen(*(f"{person}/1" for person in range(1, 13))), seen("3/2", "5/2", "12/2"))
    generator = np.random.default_rng(4)
    features = samples.map(lambda one: Bank(generator.standard_normal((len(one), 8)).astype(np.float32)))
    curves = [
        evaluate_features(
            features, samples, plan_search(f"pairs/{TO_VISIBLE}", samples, rules=GalleryRules(rank_by=rank_by))
        )[0].report.trials
        for rank_by in ("person", "image")
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("search", EVERY)
def test_a_search_never_shows_a_modality_to_itself(search):
    for plan in plan_search(search, samples_of(small_layout())):
        for trial in plan:
            assert trial.search.direction == ("infrared_to_visible" if "sysu" in search else search.split("/")[1])
            assert (trial.search.query is Modality.INFRARED) == (trial.search.direction == TO_VISIBLE)


UNKNOWN = [
    *("", "sysu", "sysu/outdoor", f"sysu/{TO_VISIBLE}", "regdb", "regdb/both", f"regdb/split-1/{TO_VISIBLE}"),
    *("llcm/all", "manifest", "manifest/site-a", "pairs", "market/all"),
]


@pytest.mark.parametrize("search", UNKNOWN)
def test_an_unknown_search_is_refused_with_the_known_ones(search):
    with pytest.raises(ConfigError, match=f"no search '{search}'") as caught:
        plan_search(search, SHARED)
    for known in EVERY:
        assert known in caught.value.hint


@pytest.mark.parametrize("draws", [GalleryDraws(trials=0), GalleryDraws(shots=(1, 0))])
def test_no_trial_and_no_shot_are_settings_out_of_range(draws):
    with pytest.raises(ConfigError, match="at least 1 of each is needed"):
        plan_search("sysu/all", samples_of(small_layout()), draws=draws)


@pytest.mark.parametrize("protocol", ["regdb", "llcm", "manifest", "pairs"])
@pytest.mark.parametrize(
    ("direction", "empty", "problem"),
    [
        (TO_VISIBLE, Modality.INFRARED, "no infrared query image"),
        (TO_VISIBLE, Modality.VISIBLE, "no visible gallery image"),
        (TO_INFRARED, Modality.VISIBLE, "no visible query image"),
        (TO_INFRARED, Modality.INFRARED, "no infrared gallery image"),
    ],
)
def test_a_side_without_images_is_named(protocol, direction, empty, problem):
    samples = PerModality.build(lambda modality: seen() if modality is empty else SHARED[modality])
    with pytest.raises(DataError, match=f"{protocol}.*{direction}.*: {problem}"):
        plan_search(f"{protocol}/{direction}", samples)
