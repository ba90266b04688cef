"""Methods by name, from a user's file, and of installed packages."""

import dataclasses
import hashlib
import sys
import textwrap

import pytest
import torch

from bench.config.registry import ENTRY_POINTS, find_method, methods
from bench.config.resolve import resolve
from bench.system.errors import BenchError
from bench.system.extensions import blamed
from distillm import SOURCES, Method, SourceOptions, TokenSequence

BATCH = [TokenSequence("a", (5, 6), (7, 8, 2)), TokenSequence("b", (5,), (9, 2))]
USER_FILE = """
    from __future__ import annotations

    from dataclasses import dataclass, field
    from typing import ClassVar

    from distillm import Method


    @dataclass(frozen=True)
    class Loss:
        scale: float = 1.0
        needs_teacher: ClassVar[bool] = False

        def __call__(self, student_logits, teacher_logits, tokens, batch):
            return self.scale * student_logits.logsumexp(-1)


    class NoDataclass:
        needs_teacher = False


    @dataclass
    class Silent:
        scale: float = 1.0


    MINE = Method("mine", Loss, "dataset", "sft", "nowhere", "a try")
    TAKEN = Method("srkl", Loss, "dataset", "sft", "nowhere", "a try")
    SOURCE = Method("mine", Loss, "on-polisy", "sft", "nowhere", "a try")
    PLAIN = Method("mine", NoDataclass, "dataset", "sft", "nowhere", "a try")
    SILENT = Method("mine", Silent, "dataset", "sft", "nowhere", "a try")
    NUMBER = 5


    @dataclass(frozen=True)
    class Clashing(Loss):
        file: str = ""


    CLASHING = Method("mine", Clashing, "dataset", "sft", "nowhere", "a try")
    INIT = Method("mine", Loss, "dataset", "warm", "nowhere", "a try")


    @dataclass(frozen=True)
    class Leaving(Loss):
        def __post_init__(self):
            raise SystemExit(0)


    @dataclass(frozen=True)
    class Hinted(Loss):
        more: "a b" = 1


    @dataclass(frozen=True)
    class Listed(Loss):
        layers: list[int] = field(default_factory=lambda: [1, 2])


    LISTED = Method("mine", Listed, "dataset", "sft", "nowhere", "a try")
    LEAVING = Method("mine", Leaving, "dataset", "sft", "nowhere", "a try")
    HINTED = Method("mine", Hinted, "dataset", "sft", "nowhere", "a try")
"""


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "my_method.py"
    path.write_text(textwrap.dedent(USER_FILE))
    return path


@pytest.mark.parametrize("name", sorted(methods()))
def test_built_in_methods_fulfil_the_interface(name):
    method, file_hash = find_method(name)
    assert (method.name, file_hash) == (name, None)
    assert method.summary
    assert method.paper
    assert "\n" not in method.summary
    assert method.source in SOURCES
    assert method.init in ("pretrained", "sft")
    SourceOptions(**method.source_options)
    objective = method.objective()
    assert dataclasses.is_dataclass(objective)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([token for one in BATCH for token in one.response])
    student = torch.randn(len(tokens), 12, generator=generator, requires_grad=True)
    teacher = torch.randn(len(tokens), 12, generator=generator) if objective.needs_teacher else None
    loss = objective(student, teacher, tokens, BATCH)
    assert (loss.shape, loss.dtype) == (tokens.shape, torch.float32)
    loss.mean().backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


# name: objective with its defaults, source, init student, options of the source, weight and KL share of its plain text
DEFAULTS = {
    "sft": ("CrossEntropy", {}, "dataset", "pretrained", {}, (0.0, 0.0)),
    "kld": ("KLD", {}, "dataset", "pretrained", {}, (0.0, 0.0)),
    "rkld": ("RKLD", {}, "dataset", "sft", {}, (0.0, 0.0)),
    "jsd": ("JSD", {"beta": 0.1}, "dataset", "sft", {}, (0.0, 0.0)),
    "tvd": ("TVD", {}, "dataset", "sft", {}, (0.0, 0.0)),
    "seqkd": ("SeqKD", {"loss": "ce"}, "teacher", "pretrained", {}, (0.0, 0.0)),
    "imitkd": ("KLD", {}, "on-policy", "sft", {"probability": 1.0}, (1.0, 0.0)),
    "gkd": ("JSD", {"beta": 0.1}, "mixed", "sft", {"probability": 0.5}, (0.0, 0.0)),
    "minillm": (
        "MiniLLM",
        {
            "teacher_mix": 0.2,
            "gamma": 0.95,
            "reward_scaling": 0.5,
            "reward_clip": 100.0,
            "clip": 0.2,
            "importance_weights": True,
            "length_normalisation": True,
            "whitening": True,
            "policy_gradient": True,
            "single_step": True,
        },
        "roll-outs",
        "sft",
        {"probability": 1.0},
        (1.0, 0.5),
    ),
    "akl": ("AKL", {"mu": 0.5}, "dataset", "sft", {}, (0.0, 0.0)),
    "abkd": ("ABKD", {"alpha": 0.2, "beta": 0.7}, "dataset", "sft", {}, (0.0, 0.0)),
    "taid": (
        "TAID",
        {"start": 0.4, "end": 1.0, "alpha": 5e-4, "momentum": 0.99},
        "dataset",
        "sft",
        {},
        (0.0, 0.0),
    ),
    "distillm2": ("Contrastive", {"alpha": 0.1, "beta": 0.5}, "contrastive", "sft", {}, (0.0, 0.0)),
    "skl": ("SKL", {"alpha": 0.1}, "dataset", "sft", {}, (0.0, 0.0)),
    "srkl": ("SRKL", {"alpha": 0.1}, "dataset", "sft", {}, (0.0, 0.0)),
    "distillm": ("SRKL", {"alpha": 0.1}, "adaptive-off-policy", "sft", {}, (1.0, 0.0)),
    "distillm-skl": ("SKL", {"alpha": 0.1}, "adaptive-off-policy", "sft", {}, (1.0, 0.0)),
}
BEYOND_THE_PAPER = {"akl", "abkd", "taid", "distillm2"}


def test_what_every_method_stands_for():
    """A changed default is another method under the same name: the table has to be changed with it, knowingly."""
    found = {
        name: (
            method.objective.__name__,
            {f.name: getattr(method.objective(), f.name) for f in dataclasses.fields(method.objective) if f.init},
            method.source,
            method.init,
            dict(method.source_options),
            (method.plain_text.weight, method.plain_text.kl_share),
        )
        for name, method in methods().items()
    }
    assert found == DEFAULTS
    assert {name for name, method in methods().items() if method.beyond_paper} == BEYOND_THE_PAPER


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_methods_defaults_reach_the_configuration(name, tmp_path):
    _, options, source, init, source_options, (weight, kl_share) = DEFAULTS[name]
    (tmp_path / "text.txt").write_text("a paragraph")
    given = {"preset": "paper", "task": "samsum", "assignments": [f"plain_text.file={tmp_path / 'text.txt'}"]}
    config, _ = resolve(method=name, **given)
    assert (config.method.name, config.method.file, config.method.file_sha256) == (name, None, None)
    assert config.method.options == options
    assert config.sgo.source == source
    assert {key: getattr(config.sgo, key) for key in source_options} == source_options
    assert config.init == init
    assert (config.plain_text.weight, config.plain_text.kl_share) == (weight, kl_share)


def test_unknown_names_offer_the_nearest_and_a_file():
    with pytest.raises(BenchError, match=r"did you mean 'srkl'\?") as caught:
        find_method("srlk")
    assert "path/to/file.py:NAME" in str(caught.value)


def test_a_users_file_works_with_its_options_and_its_hash(user_file):
    method, file_hash = find_method(f"{user_file}:MINE")
    assert isinstance(method, Method)
    assert method.name == "mine"
    assert file_hash == hashlib.sha256(user_file.read_bytes()).hexdigest()
    config, _ = resolve(
        preset="tiny", task="dolly", method=f"{user_file}:MINE", assignments=["method.scale=2", "sgo.source=mixed"]
    )
    assert config.method.options == {"scale": 2.0}
    assert (config.method.name, config.method.file) == ("mine", f"{user_file}:MINE")
    assert config.method.file_sha256 == file_hash
    assert config.sgo.source == "mixed"
    with pytest.raises(BenchError, match=r"'method.scales': did you mean 'method.scale'"):
        resolve(preset="tiny", task="dolly", method=f"{user_file}:MINE", assignments=["method.scales=2"])


def test_the_hash_changes_with_the_file_and_the_code_with_it(user_file):
    before = find_method(f"{user_file}:MINE")
    user_file.write_text(user_file.read_text().replace("scale: float = 1.0", "scale: float = 3.25"))
    after = find_method(f"{user_file}:MINE")
    assert before[1] != after[1]
    assert (before[0].objective().scale, after[0].objective().scale) == (1.0, 3.25)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("OTHER", ["it defines no 'OTHER'", "MINE", "TAKEN"]),
        ("NUMBER", ["expected a distillm.Method", "int"]),
        ("Loss", ["expected a distillm.Method"]),
        ("PLAIN", ["must be a dataclass"]),
        ("SILENT", ["needs_teacher"]),
        ("SOURCE", ["unknown output source 'on-polisy'", "did you mean 'on-policy'"]),
        ("TAKEN", ["'srkl' exists already"]),
        ("CLASHING", ["cannot have an option named file"]),
        ("INIT", ["unknown init student 'warm'", "pretrained or sft"]),
    ],
)
def test_what_is_wrong_in_a_users_file_is_told(user_file, attribute, words):
    with pytest.raises(BenchError) as caught:
        find_method(f"{user_file}:{attribute}")
    assert all(word in str(caught.value) for word in [*words, "my_method.py"]), str(caught.value)


@pytest.mark.parametrize(("attribute", "words"), [("LEAVING", "SystemExit: 0"), ("HINTED", "must be plain numbers")])
def test_options_that_misbehave_are_told(user_file, attribute, words):
    with pytest.raises(BenchError, match=words):
        resolve(preset="tiny", task="dolly", method=f"{user_file}:{attribute}")


def test_an_option_may_have_a_default_that_is_made(user_file):
    config, _ = resolve(preset="tiny", task="dolly", method=f"{user_file}:LISTED")
    assert config.method.options == {"scale": 1.0, "layers": [1, 2]}


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BenchError, match=r"there is no file .*absent\.py"):
        find_method(f"{tmp_path}/absent.py:MINE")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_fails_to_import_says_why(tmp_path, text, words):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(BenchError, match="fails to import") as caught:
        find_method(f"{tmp_path / 'broken.py'}:MINE")
    assert words in str(caught.value)


@pytest.fixture
def install(user_file, monkeypatch):
    """Install the user's file as a package with an entry point, for the time of the test."""

    def installed(attribute: str) -> None:
        info = user_file.parent / "plug_in-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmine = my_method:{attribute}\n")
        monkeypatch.syspath_prepend(user_file.parent)
        monkeypatch.delitem(sys.modules, "my_method", raising=False)
        methods.cache_clear()

    yield installed
    methods.cache_clear()


def test_an_installed_packages_method_is_known_by_name(install):
    install("MINE")
    method, file_hash = find_method("mine")
    assert (method.name, file_hash) == ("mine", None)
    assert "srkl" in methods()
    config, _ = resolve(preset="tiny", task="dolly", method="mine", assignments=["method.scale=0.5"])
    assert (config.method.name, config.method.file_sha256) == ("mine", None)
    assert config.method.options == {"scale": 0.5}


def test_what_an_installed_package_raises_is_told_with_its_line(install):
    install("MINE")
    find_method("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("\n1 / 0", sys.modules["my_method"].__file__, "exec"))
    assert "my_method.py, line 2: ZeroDivisionError: division by zero" in str(blamed(caught.value))


@pytest.mark.parametrize(
    ("attribute", "words"),
    [("TAKEN", "'srkl' exists already"), ("NUMBER", "expected a distillm.Method"), ("OTHER", "cannot be loaded")],
)
def test_an_installed_package_that_is_wrong_is_named(install, attribute, words):
    install(attribute)
    with pytest.raises(BenchError, match=rf"my_method:{attribute}.*{words}"):
        find_method("srkl")
