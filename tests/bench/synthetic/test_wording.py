"""Wording templates: choices, values, lists and capital letters."""

from random import Random

import pytest

from bench.synthetic.wording import capitalise_sentences, listing, realise


def test_templates():
    forms = {realise(Random(seed), "[a|b[c|d]] {x}", {"x": "[1|2]"}) for seed in range(40)}
    assert forms == {"a [1|2]", "bc [1|2]", "bd [1|2]"}
    with pytest.raises(ValueError, match="unbalanced"):
        realise(Random(0), "[a|b")
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert capitalise_sentences("ok. see you") == "Ok. See you"
