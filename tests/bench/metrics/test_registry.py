"""Finding metrics: those that ship, those of other packages, and those of a user's file."""

import subprocess
import sys

import pytest

from bench.metrics.metric import score_texts
from bench.metrics.registry import ENTRY_POINTS, check_known, find_metric, find_metrics, metric_identity, metrics
from bench.system.errors import BenchError

USER_FILE = '''
class Words:
    """Share in percent of the words of a prediction that stand in a reference."""

    name = "words"
    label = "words"
    score_of_sum = None

    def signature(self, references):
        return "words of the prediction in any reference, percent, mean over examples"

    def example(self, prediction, references):
        known = {word for text in references for word in text.split()}
        words = prediction.split()
        return 100.0 * sum(word in known for word in words) / len(words) if words else 0.0


class Counted(Words):
    name = "counted"

    def example(self, prediction, references):
        return [sum(word in references[0].split() for word in prediction.split()), len(prediction.split())]

    @staticmethod
    def score_of_sum(summed):
        return float(100.0 * summed[0] / summed[1])


WORDS = Words()
NUMBER = 3

class Taken(Words):
    name = "bleu"

class Named(Words):
    name = "my words"

class Demanding(Words):
    def __init__(self, order):
        self.order = order

class Numbered(Words):
    label = 5

class Unsigned(Words):
    def signature(self, references):
        return references and "words"

class Summed(Words):
    score_of_sum = 3

class Leaving(Words):
    def __init__(self):
        raise SystemExit(0)

class Half:
    name = label = "half"
'''


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "my_metric.py"
    path.write_text(USER_FILE)
    return path


def test_shipped_metrics_by_name():
    assert [metric.label for metric in find_metrics(["chrf", "rouge_l"])] == ["chrF", "ROUGE-L"]
    assert all(metric.name == name for name, metric in metrics().items())
    with pytest.raises(BenchError, match=r"unknown metric 'chrff': did you mean 'chrf'\?; .*path/to/file\.py:NAME"):
        find_metric("chrff")


def test_naming_metrics_imports_none_of_their_libraries():
    """`bench list tasks` prints labels: nltk alone takes over a second."""
    code = (
        "import sys; from bench.data import TASKS; from bench.metrics.registry import find_metrics\n"
        "print([metric.label for spec in TASKS.values() for metric in find_metrics(spec.metrics)])\n"
        "print({'nltk', 'rouge_score', 'sacrebleu'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['ROUGE-L', 'BLEU', 'ROUGE-L']", "set()"]


@pytest.mark.parametrize("name", ["WORDS", "Words"])
def test_a_metric_of_a_users_file_an_object_or_its_class(user_file, name):
    metric = find_metric(f"{user_file}:{name}")
    assert (metric.name, metric.example("the cat", ["a cat"])) == ("words", 50.0)
    assert score_texts(metric, ["the cat", "dog"], [["a cat"], ["dog"]]) == 75.0


def test_a_metric_of_counts_in_a_users_file(user_file):
    metric = find_metric(f"{user_file}:Counted")
    assert score_texts(metric, ["the cat", "dog"], [["a cat"], ["dog"]]) == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Other", ["it defines no 'Other'", "Words, Counted, WORDS"]),
        ("NUMBER", ["expected a metric", "it lacks name, label, signature, example, score_of_sum"]),
        ("Half", ["expected a metric", "it lacks signature, example, score_of_sum"]),
        ("Taken", ["a metric named 'bleu' exists already", "rename yours"]),
        ("Named", ["its name is 'my words'", "letters, digits"]),
        ("Demanding", ["called without arguments", "order"]),
        ("Numbered", ["its label and what its signature returns must be texts"]),
        ("Unsigned", ["its label and what its signature returns must be texts"]),
        ("Summed", ["score_of_sum must be None or a function, got 3"]),
        ("Leaving", ["called without arguments", "SystemExit: 0"]),
    ],
)
def test_what_is_wrong_in_a_users_file_is_told(user_file, name, words):
    with pytest.raises(BenchError) as caught:
        find_metric(f"{user_file}:{name}")
    assert all(word in str(caught.value) for word in [f"{user_file}:{name}", *words]), str(caught.value)


def test_two_metrics_of_one_name_are_refused(user_file):
    with pytest.raises(BenchError, match=r"has the name 'words' too; rename one"):
        find_metrics([f"{user_file}:Words", f"{user_file}:WORDS"])


def test_checking_a_name_does_not_run_the_file(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    check_known(f"{path}:ANY")
    with pytest.raises(BenchError, match=r"fails to import: ZeroDivisionError"):
        find_metric(f"{path}:ANY")
    with pytest.raises(BenchError, match=r"there is no file .*absent\.py"):
        check_known(f"{tmp_path}/absent.py:ANY")


def test_a_metrics_identity_is_the_content_of_its_file(user_file, tmp_path):
    assert metric_identity("bleu") == "bleu"
    before = metric_identity(f"{user_file}:Words")
    copy = tmp_path / "copy.py"
    copy.write_text(USER_FILE)
    assert metric_identity(f"{copy}:Words") == before != metric_identity(f"{copy}:WORDS")
    copy.write_text(USER_FILE + "# changed")
    assert metric_identity(f"{copy}:Words") != before


@pytest.fixture
def install(user_file, monkeypatch):
    """Install the user's file as a package with an entry point, for the time of the test."""

    def installed(attribute: str) -> None:
        info = user_file.parent / "plug_in-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmine = my_metric:{attribute}\n")
        monkeypatch.syspath_prepend(user_file.parent)
        monkeypatch.delitem(sys.modules, "my_metric", raising=False)
        metrics.cache_clear()

    yield installed
    metrics.cache_clear()


def test_an_installed_packages_metric_is_known_by_name(install):
    install("Words")
    assert find_metric("words").label == "words"
    assert "bleu" in metrics()


@pytest.mark.parametrize(
    ("attribute", "words"),
    [("Taken", "'bleu' exists already"), ("NUMBER", "expected a metric"), ("Other", "cannot be loaded")],
)
def test_an_installed_package_that_is_wrong_is_named(install, attribute, words):
    install(attribute)
    with pytest.raises(BenchError, match=rf"my_metric:{attribute}.*{words}"):
        metrics()
