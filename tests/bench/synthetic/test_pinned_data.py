"""The data of seed 0, pinned: results made with it, and the models that ship, hold for these records only."""

import hashlib
import json

import pytest

from bench import synthetic
from bench.synthetic import plain_text
from bench.synthetic.dolly import records as dolly
from bench.synthetic.iwslt import records as iwslt
from bench.synthetic.samsum import records as samsum

GENERATE = {"dolly": dolly.generate, "samsum": samsum.generate, "iwslt": iwslt.generate}
RECORDS = {  # SHA-256 by task, split and number of records (None: all)
    ("dolly", "train", None): "1356f230b823f04eba6bb75f7b815a118ab324961414695aa45d3cad1b9aaadc",
    ("dolly", "validation", None): "a414b7d9ec55c6ea1329c4aca8a5c66069bd65783179c376aad3a796b504c51f",
    ("dolly", "test", None): "350b0c277836c804cb3bc64ccbfb26655e9a879f39f45aa6fef885e26c92ed0d",
    ("dolly", "selfinst", None): "cdd8c6231c965ae3225840e0558929e5ac20432c51bb3e8ebccc415ea4850a78",
    ("dolly", "vicuna", None): "ca4473adbd317dd30ee41df5cbb7e90c251daf44f00373788f4df4980902faa1",
    ("dolly", "sinst", None): "256328589149830da299e164c16cb03f52b2a80b65fa205a69694a70d94b9376",
    ("dolly", "uinst", None): "ec5c671e988ba06b19f0519a539429960154b1590b46aa8dbbd9b20b5fe2368e",
    ("samsum", "train", None): "b2a7fdb34d11f5c0c7967f3c7fa4402528e33da9b42f19af866a66156844b51d",
    ("samsum", "validation", None): "19d48f1b06d91f18528ff09285c635facf9d347ae77b4e8490d4b08f218f344e",
    ("samsum", "test", None): "241c884fee4fb5dc7c10851a13716ba33c51b04127626a0c5b6f26d74c95d62f",
    ("iwslt", "train", None): "3539f72b49a1eb849be40d111dc9709cc7711152fea8b499c2d3c64d06eca2f5",
    ("iwslt", "validation", None): "3c22c39541cab297a215063a63079d16dedfa2158ee15900c2c868cd4fe6bf73",
    ("iwslt", "test", None): "d4e48b5033f3e1b1b4aa0554cfdbe9567178b1fcf0ec9e721519e10c66c32584",
    ("dolly", "teacher_train", 2000): "524849f211f0eacb8682c20aa706a2904c7851772498e1ec2c6e26260b839829",
    ("samsum", "teacher_train", 2000): "8958fdcf7eafbf256f0217f8daf9650210643380dbdc868d09e14a7b2bddb654",
    ("iwslt", "teacher_train", 2000): "7c49165192ffe282a8e8fe27f2e8d538efa626d288243ac8d873cb533291cccc",
}
PLAIN_TEXT = "b17b0769a2eb1054de997698f188fe30c42c12a6adbc0a1030d0519c9b08fdb8"


def _sha256(data):
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


@pytest.mark.parametrize(("task", "split", "size"), RECORDS)
def test_records(task, split, size):
    assert _sha256(GENERATE[task](split, 0, size)) == RECORDS[task, split, size]


def test_plain_text():
    assert _sha256(plain_text.generate(2000)) == PLAIN_TEXT


def test_what_one_caller_changes_no_other_sees():
    """A process makes the records of a split once."""
    (first,) = synthetic.generate("dolly", ("vicuna",)).values()
    expected = _sha256(first)
    first[0]["instruction"] = "changed"
    first.pop()
    (again,) = synthetic.generate("dolly", ("vicuna",)).values()
    assert _sha256(again) == expected
