"""In what two configurations differ."""

from bench.config.comparable import differences


def test_differences_are_named_by_dotted_keys():
    first = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "only": 0}
    assert list(differences(first, first)) == []
    assert [str(one) for one in differences(first, {"a": {"x": 2, "y": [1, 2]}, "b": {"z": 1}})] == [
        "a.x: 1 against 2",
        "b: 1 against {'z': 1}",
        "only: 0 against None",
    ]


def test_an_architecture_is_compared_whole():
    first, second = ({"models": {"student_config": {"model_type": "gpt2", "n_layer": n}}} for n in (2, 4))
    (found,) = differences(first, second)
    assert found.key == "models.student_config"
    assert found.second == {"model_type": "gpt2", "n_layer": 4}
