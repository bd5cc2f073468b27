"""Training people in one modality only: their number, the changes to the data set, and the line in its check."""

import filecmp
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from models.modality import Modality
from pipeline.data.dataset import check_dataset, read_dataset
from pipeline.data.synthetic.knobs import DEFAULT
from pipeline.data.synthetic.plan import Plan, with_unpaired
from pipeline.data.synthetic.writer import LAYOUTS, SyntheticSummary, generate_dataset
from pipeline.errors import ConfigError, DataError

PAIRABLE = ["sysu", "llcm", "manifest"]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of seed 1, by layout: half of the training people in one modality only."""
    root = tmp_path_factory.mktemp("unpaired")
    for layout in PAIRABLE:
        generate_dataset(root / layout, size="smoke", layout=layout, height=48, width=24, workers=1, unpaired=0.5)
    return {layout: root / layout for layout in PAIRABLE}


def modalities(plan: Plan, layout: str) -> dict[int, set[Modality]]:
    modality_of = {station.number: station.modality for station in LAYOUTS[layout].stations}
    seen: dict[int, set[Modality]] = {}
    for shot in plan.shots:
        seen.setdefault(shot.person, set()).add(modality_of[shot.station])
    return seen


@pytest.mark.parametrize("layout", PAIRABLE)
def test_half_of_the_training_people_are_in_one_modality_and_all_others_in_both(layout: str) -> None:
    whole = LAYOUTS[layout].plan("demo", 1, DEFAULT)
    plan = with_unpaired(whole, 0.5, 1, LAYOUTS[layout].stations)
    seen = modalities(plan, layout)
    # 110 training people: 55 unpaired, the odd one in visible images.
    trained = Counter(frozenset(seen[person]) for person in plan.people["train"])
    assert trained == {frozenset(Modality): 55, frozenset({Modality.VISIBLE}): 28, frozenset({Modality.INFRARED}): 27}
    assert all(
        seen[person] == set(Modality) for split in plan.people if split != "train" for person in plan.people[split]
    )
    for modality, people in plan.unpaired.items():
        assert list(people) == sorted(person for person in seen if seen[person] == {modality})
    assert plan.people == whole.people
    # Nothing is renumbered, and a person who remains in a modality keeps all its images.
    kept = [
        shot
        for shot in whole.shots
        if any(shot.station == one.station for one in plan.shots if one.person == shot.person)
    ]
    assert list(plan.shots) == kept


@pytest.mark.parametrize(
    ("share", "only"), [(0.0, (0, 0)), (0.25, (2, 1)), (0.04, (0, 0)), (0.05, (1, 0)), (1.0, (6, 6))]
)
def test_shares_are_rounded_to_people(share: float, only: tuple[int, int]) -> None:
    plan = with_unpaired(LAYOUTS["sysu"].plan("smoke", 1, DEFAULT), share, 1, LAYOUTS["sysu"].stations)
    assert tuple(plan.unpaired.map(len)) == only  # of twelve people


def test_another_seed_chooses_other_people() -> None:
    plan = LAYOUTS["sysu"].plan("demo", 1, DEFAULT)
    one, other = (with_unpaired(plan, 0.5, seed, LAYOUTS["sysu"].stations) for seed in (1, 2))
    assert one.unpaired != other.unpaired


@pytest.mark.parametrize("layout", PAIRABLE)
def test_remaining_images_have_the_bytes_of_the_whole_data_set(
    half: dict[str, Path], smoke_sets: dict[str, tuple[Path, SyntheticSummary]], layout: str
) -> None:
    whole, _ = smoke_sets[layout]
    names = {path.relative_to(half[layout]).as_posix() for path in half[layout].rglob("*.jpg")}
    everything = {path.relative_to(whole).as_posix() for path in whole.rglob("*.jpg")}
    assert names < everything
    assert filecmp.cmpfiles(half[layout], whole, names, shallow=False)[1:] == ([], [])


@pytest.mark.parametrize("layout", PAIRABLE)
def test_the_data_set_is_complete_and_its_check_names_the_unpaired_people(half: dict[str, Path], layout: str) -> None:
    check = check_dataset(layout, half[layout])
    assert check.passed
    assert "unpaired training people: 3 in visible images only and 3 in infrared images only" in check.notes
    people = read_dataset(layout, half[layout]).training.people
    visible, infrared = (set(one.ids.tolist()) for one in people)
    assert (len(visible - infrared), len(infrared - visible)) == (3, 3)
    assert json.loads((half[layout] / "drawn.json").read_text())["unpaired"] == {
        "share": 0.5, "visible_only": 3, "infrared_only": 3,
    }  # fmt: skip


def test_a_data_set_without_unpaired_people_does_not_mention_them(
    smoke_sets: dict[str, tuple[Path, SyntheticSummary]],
) -> None:
    for layout, (folder, _) in smoke_sets.items():
        assert "unpaired" not in (folder / "drawn.json").read_text()
        assert not any("unpaired" in note for note in check_dataset(layout, folder).notes)


def test_a_missing_image_is_named_among_unpaired_people(half: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.symlink_to(half["sysu"])
    gone = min(half["sysu"].glob("cam*/*/*.jpg"))
    content = gone.read_bytes()
    gone.unlink()
    try:
        offenders = check_dataset("sysu", root).offenders
    finally:
        gone.write_bytes(content)
    assert offenders and all(gone.parent.name in offender for offender in offenders)


@pytest.mark.parametrize(
    ("layout", "share", "message"),
    [
        ("regdb", 0.5, "tested in some of its ten splits"),
        ("sysu", 1.5, r"is 1\.5"),
        ("sysu", -0.1, r"is -0\.1"),
        ("sysu", math.nan, "is nan"),
    ],
)
def test_an_impossible_share_is_refused(tmp_path: Path, layout: str, share: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        generate_dataset(tmp_path / "set", size="smoke", layout=layout, unpaired=share)
    assert "choose" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recorded", [3, [1], {"visible_only": "many"}])
def test_a_damaged_description_is_one_clear_error(half: dict[str, Path], recorded: object) -> None:
    file = half["llcm"] / "drawn.json"
    content = file.read_text()
    file.write_text(json.dumps({**json.loads(content), "unpaired": recorded}))
    try:
        with pytest.raises(DataError, match="no numbers of unpaired people"):
            check_dataset("llcm", half["llcm"])
    finally:
        file.write_text(content)
