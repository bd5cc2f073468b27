"""Settings are compared under dotted names."""

from pipeline.config.experiment import differences, flat


def test_only_what_is_nested_is_taken_apart():
    assert list(flat({"b": {"c": {"d": None}}, "a": [{"e": 1}]})) == [("b.c.d", None), ("a", [{"e": 1}])]


def test_equal_settings_differ_in_nothing():
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == ""


def test_a_setting_that_one_side_lacks_is_none_there():
    assert differences({"new": {"a": 1}}, {"old": 2}) == "new.a 1 there, None here; old None there, 2 here"


def test_only_the_first_four_are_shown():
    there, here = {f"s{n}": 0 for n in range(6)}, {f"s{n}": 1 for n in range(6)}
    assert differences(there, here).endswith("s3 0 there, 1 here; and 2 more")
