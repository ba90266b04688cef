"""In what two configurations differ."""

from bench.config.comparable import differences, differences_in_words


def test_differences_are_named_by_dotted_keys():
    first = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "only": 0}
    assert list(differences(first, first)) == []
    assert list(differences(first, {"a": {"x": 2, "y": [1, 2]}, "b": {"z": 1}})) == [
        ("a.x", 1, 2),
        ("b", 1, {"z": 1}),
        ("only", 0, None),
    ]


def test_an_architecture_is_compared_whole():
    first, second = ({"models": {"student_config": {"model_type": "gpt2", "n_layer": n}}} for n in (2, 4))
    (found,) = differences(first, second)
    assert found.key == "models.student_config"
    assert found.second == {"model_type": "gpt2", "n_layer": 4}


def test_in_words_there_are_no_hashes_and_a_pair_stands_for_its_models():
    first = {
        "config": {"models": {"name": "a", "student_config": {"n": 1}}, "steps": 1},
        "models": {"student": "0" * 64},
    }
    second = {
        "config": {"models": {"name": "a", "student_config": {"n": 2}}, "steps": 2},
        "models": {"student": "f" * 64},
    }
    told = ["models.student_config", "steps (1 against 2)", "models.student (other contents)"]
    assert differences_in_words(first, second) == told
    second["config"]["models"]["name"] = "b"
    assert differences_in_words(first, second) == ["models.name (a against b)", "steps (1 against 2)"]
