"""The data of IWSLT: German morphology, word order, and the properties of the splits."""

import os
import random
import re
import subprocess
import sys

import pytest

from bench.synthetic import generate
from bench.synthetic.iwslt import english_sentences
from bench.synthetic.iwslt import records as iwslt
from bench.synthetic.iwslt.clauses import Clause, Link, NounPhrase, Pronoun, RelativeClause, Sentence
from bench.synthetic.iwslt.german_morphology import (
    HABEN,
    MODALS,
    SEIN,
    WERDEN,
    Noun,
    Verb,
    contract,
    determiner,
    inflect_adjective,
    relative_pronoun,
)
from bench.synthetic.iwslt.german_sentences import GermanWriter
from bench.synthetic.iwslt.lexicon import Phrase, load_lexicon
from bench.synthetic.iwslt.records import MAX_REFERENCES, MIN_REFERENCES, SHARES, SIZES

LEXICON = load_lexicon()
NOUNS = {entry.english: entry for entry in LEXICON.nouns}
ADJECTIVES = {entry.english: entry for entry in LEXICON.adjectives}
WEIL = Link("because", (("subordinate", "weil"),), comma=False)


def _verb(infinitive: str) -> Verb:
    return next(v for entry in LEXICON.verbs for v in entry.german if v.infinitive == infinitive)


def _entry(english: str, frame: str):
    return next(entry for entry in LEXICON.verbs if entry.english == english and entry.frame == frame)


def _renderings(sentence: Sentence) -> set[str]:
    return {GermanWriter(random.Random(seed)).sentence(sentence) for seed in range(200)}


@pytest.fixture(scope="module")
def splits():
    return generate("iwslt", ("train", "validation", "test"))


PHRASES = [  # determiner, adjective, noun, (nominative, accusative, dative, genitive)
    ("der", "alt", "man", "der alte Mann|den alten Mann|dem alten Mann|des alten Mannes"),
    ("der", "alt", "woman", "die alte Frau|die alte Frau|der alten Frau|der alten Frau"),
    ("der", "alt", "child", "das alte Kind|das alte Kind|dem alten Kind|des alten Kindes"),
    ("ein", "klein", "dog", "ein kleiner Hund|einen kleinen Hund|einem kleinen Hund|eines kleinen Hundes"),
    ("ein", "klein", "cat", "eine kleine Katze|eine kleine Katze|einer kleinen Katze|einer kleinen Katze"),
    ("mein", "groß", "house", "mein großes Haus|mein großes Haus|meinem großen Haus|meines großen Hauses"),
    (
        "unser",
        "neu",
        "student",
        "unser neuer Student|unseren neuen Studenten|unserem neuen Studenten|unseres neuen Studenten",
    ),
    ("dies", "hoh", "mountain", "dieser hohe Berg|diesen hohen Berg|diesem hohen Berg|dieses hohen Berges"),
    ("jed", "teur", "bag", "jede teure Tasche|jede teure Tasche|jeder teuren Tasche|jeder teuren Tasche"),
    ("", "frisch", "fish", "frischer Fisch|frischen Fisch|frischem Fisch|frischen Fisches"),
    ("", "warm", "soup", "warme Suppe|warme Suppe|warmer Suppe|warmer Suppe"),
]
PLURALS = [
    ("der", "alt", "man", "die alten Männer|die alten Männer|den alten Männern|der alten Männer"),
    ("kein", "klein", "car", "keine kleinen Autos|keine kleinen Autos|keinen kleinen Autos|keiner kleinen Autos"),
    ("", "rot", "apple", "rote Äpfel|rote Äpfel|roten Äpfeln|roter Äpfel"),
    ("viel", "gut", "book", "viele gute Bücher|viele gute Bücher|vielen guten Büchern|vieler guter Bücher"),
    ("all", "jung", "woman", "alle jungen Frauen|alle jungen Frauen|allen jungen Frauen|aller jungen Frauen"),
    ("zwei", "schwarz", "cat", "zwei schwarze Katzen|zwei schwarze Katzen|zwei schwarzen Katzen|zwei schwarzer Katzen"),
]


@pytest.mark.parametrize(("word", "adjective", "english", "expected"), PHRASES + PLURALS)
def test_declension_of_noun_phrases(word, adjective, english, expected):
    plural = (word, adjective, english, expected) in PLURALS
    noun = NOUNS[english].german[0]
    forms = []
    for case in ("nom", "acc", "dat", "gen"):
        head, declension = determiner(word, noun.gender, case, plural)
        inflected = inflect_adjective(adjective, declension, noun.gender, case, plural)
        forms.append(f"{head} {inflected} {noun.form(case, plural)}".strip())
    assert forms == expected.split("|")


@pytest.mark.parametrize(
    ("infinitive", "present", "past"),
    [  # ich du er wir sie
        ("kaufen", "kaufe kaufst kauft kaufen kaufen", "kaufte kauftest kaufte kauften kauften"),
        ("warten", "warte wartest wartet warten warten", "wartete wartetest wartete warteten warteten"),
        ("sammeln", "sammle sammelst sammelt sammeln sammeln", "sammelte sammeltest sammelte sammelten sammelten"),
        ("ändern", "ändere änderst ändert ändern ändern", "änderte ändertest änderte änderten änderten"),
        ("lesen", "lese liest liest lesen lesen", "las lasest las lasen lasen"),
        ("sehen", "sehe siehst sieht sehen sehen", "sah sahst sah sahen sahen"),
        ("finden", "finde findest findet finden finden", "fand fandest fand fanden fanden"),
        ("waschen", "wasche wäschst wäscht waschen waschen", "wusch wuschst wusch wuschen wuschen"),
        ("essen", "esse isst isst essen essen", "aß aßest aß aßen aßen"),
        ("erhalten", "erhalte erhältst erhält erhalten erhalten", "erhielt erhieltest erhielt erhielten erhielten"),
        ("einladen", "lade lädst lädt laden laden", "lud ludest lud luden luden"),
        ("anfangen", "fange fängst fängt fangen fangen", "fing fingst fing fingen fingen"),
        ("wissen", "weiß weißt weiß wissen wissen", "wusste wusstest wusste wussten wussten"),
    ],
)  # fmt: skip
def test_conjugation(infinitive, present, past):
    verb = _verb(infinitive)
    persons = ("1s", "2s", "3s", "1p", "3p")
    assert [verb.finite("present", person) for person in persons] == present.split()
    assert [verb.finite("past", person) for person in persons] == past.split()


def test_conjugation_of_auxiliaries_and_modals():
    assert [SEIN.finite("present", p) for p in ("1s", "2s", "3s", "3p")] == ["bin", "bist", "ist", "sind"]
    assert [HABEN.finite(t, "2s") for t in ("present", "past")] == ["hast", "hattest"]
    assert [WERDEN.finite(t, "3p") for t in ("present", "past")] == ["werden", "wurden"]
    assert [MODALS["must"].finite("past", p) for p in ("1s", "2s", "3p")] == ["musste", "musstest", "mussten"]
    assert [MODALS["may"].finite("present", p) for p in ("1s", "2s", "3s")] == ["darf", "darfst", "darf"]


@pytest.mark.parametrize(
    ("infinitive", "participle", "zu_infinitive", "auxiliary"),
    [
        ("anfangen", "angefangen", "anzufangen", "haben"),
        ("aufstehen", "aufgestanden", "aufzustehen", "sein"),
        ("zurückkehren", "zurückgekehrt", "zurückzukehren", "sein"),
        ("gehen", "gegangen", "zu gehen", "sein"),
        ("schreiben", "geschrieben", "zu schreiben", "haben"),
        ("verlieren", "verloren", "zu verlieren", "haben"),
        ("reparieren", "repariert", "zu reparieren", "haben"),
    ],
)
def test_participles_and_zu_infinitives(infinitive, participle, zu_infinitive, auxiliary):
    verb = _verb(infinitive)
    assert (verb.participle, verb.zu_infinitive, verb.auxiliary) == (participle, zu_infinitive, auxiliary)


def test_weak_nouns_contractions_and_relative_pronouns():
    assert Noun.parse("der Junge, Jungen, Jungen").form("acc") == "Jungen"
    assert Noun.parse("der Motor, Motors, Motoren").form("acc") == "Motor"
    assert contract("in", "dem alten Haus") == "im alten Haus"
    assert contract("zu", "der Schule") == "zur Schule"
    assert contract("in", "diesem Haus") == "in diesem Haus"
    assert [relative_pronoun("m", case) for case in ("nom", "acc", "dat")] == ["der", "den", "dem"]
    assert relative_pronoun("f", "dat", plural=True) == "denen"


def test_subordinate_clause_puts_the_verb_last_and_main_clause_second():
    early = Clause(Pronoun("she"), _entry("get up", "intr"), time=Phrase("today", ("heute",)))
    tired = Clause(Pronoun("he"), None, predicate=ADJECTIVES["tired"])
    sentence = Sentence(((None, early), (WEIL, tired)))
    assert english_sentences.sentence(sentence) == "She gets up today because he is tired."
    assert _renderings(sentence) == {
        "Sie steht heute auf, weil er müde ist.",
        "Heute steht sie auf, weil er müde ist.",
    }
    assert _renderings(Sentence(((None, tired),), fronted=(WEIL, early))) == {"Weil sie heute aufsteht, ist er müde."}


def test_perfect_modal_and_negation():
    book, apple = (NounPhrase(NOUNS[name], word) for name, word in (("book", "the"), ("apple", "a")))
    reads = Clause(Pronoun("I"), _entry("read", "acc"), "past", negated=True, object=book)
    assert english_sentences.sentence(Sentence(((None, reads),))) == "I did not read the book."
    assert _renderings(Sentence(((None, reads),))) == {"Ich las das Buch nicht.", "Ich habe das Buch nicht gelesen."}
    eats = Clause(Pronoun("you"), _entry("eat", "acc"), modal="want", negated=True, object=apple)
    assert english_sentences.sentence(Sentence(((None, eats),))) == "You do not want to eat an apple."
    assert _renderings(Sentence(((None, eats),))) == {
        "Du willst keinen Apfel essen.",
        "Sie wollen keinen Apfel essen.",
    }
    assert _renderings(Sentence(((None, eats),), question=True)) == {
        "Willst du keinen Apfel essen?",
        "Wollen Sie keinen Apfel essen?",
    }


def test_relative_and_infinitive_clauses():
    man = NounPhrase(NOUNS["man"], "the")
    helps = Clause(Pronoun("she"), _entry("help", "dat"), object=man)
    subject = NounPhrase(NOUNS["man"], "the", relative=RelativeClause(helps, "object", "who"))
    sleeps = Clause(subject, _entry("fall asleep", "intr"))
    sentence = Sentence(((None, Clause(subject, _entry("try", "to"), complement=sleeps)),))
    assert english_sentences.sentence(sentence) == "The man who she helps tries to fall asleep."
    assert _renderings(sentence) == {"Der Mann, dem sie hilft, versucht, einzuschlafen."}


def test_splits_have_their_sizes_and_shape(splits):
    for name, records in splits.items():
        assert [record["id"] for record in records] == [f"{name}-{n}" for n in range(SIZES[name])]
    for record in splits["test"] + splits["validation"]:
        references = record["references"]
        assert MIN_REFERENCES <= len(references) == len(set(references)) <= MAX_REFERENCES
        assert references[0] == record["translation"]["de"]


def test_lengths_and_punctuation(splits):
    records = [record["translation"] for split in splits.values() for record in split]
    words = [len(record["en"].split()) for record in records]
    assert max(words) <= 40
    assert 10 <= sum(words) / len(words) <= 25
    for text in (text for record in records for text in record.values()):
        assert re.fullmatch(r"[A-ZÄÖÜ][^.?]*[^,.? ][.?]", text), text
        assert ",," not in text
        assert "  " not in text
        assert " ," not in text


def test_vocabulary_is_large(splits):
    records = [record["translation"] for split in splits.values() for record in split]
    for language in ("en", "de"):
        words = {word for record in records for word in re.findall(r"\w+", record[language].lower())}
        assert len(words) >= 1000
    assert len(LEXICON.nouns) >= 250
    assert len({entry.english for entry in LEXICON.verbs}) >= 120
    assert len(LEXICON.adjectives) >= 100


def test_no_english_sentence_is_shared():
    sizes = {"train": 800, "validation": 100, "test": 200, "teacher_train": 2000}
    splits = [iwslt.generate(name, 1, size) for name, size in sizes.items()]
    sentences = [record["translation"]["en"] for split in splits for record in split]
    assert len(sentences) == len(set(sentences)) == 3100
    assert sorted(bucket for share in SHARES.values() for bucket in share) == list(range(8))


def test_the_same_seed_gives_the_same_data_in_another_process():
    code = "from bench.synthetic.iwslt import records as iwslt; print(ascii(iwslt.generate('validation', 3)))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == ascii(iwslt.generate("validation", 3))
    assert iwslt.generate("validation", 3) != iwslt.generate("validation", 4)
