"""The authors' defects that change results, each repeated on demand so that its worth can be measured."""

from __future__ import annotations

from pydantic import Field

from bench.config.section import Section

NO_REPEAT_NGRAM = 6

WORTH = {
    "sgo_first_token": "fewer counted tokens: nothing teaches the student how to begin its own outputs",
    "sgo_eos": "nothing teaches the student to stop; responses grow longer",
    "replayed_on_policy": "baselines pay the full price of generation for stale outputs",
    "train_without_bos": "train and test prompts differ (OPT, Llama)",
    "no_repeat_ngram": "over 1 ROUGE-L on Dolly, for teacher and students alike",
}
"""What each does to results, for `bench list fidelity`."""


class Fidelity(Section):
    """Which defects of the authors' code (github.com/jongwooko/distillm at d47e77f) are repeated; by default none."""

    sgo_first_token: bool = Field(
        default=False, description="student-generated outputs lose the loss of their first token (labels not shifted)"
    )
    sgo_eos: bool = Field(
        default=False,
        description="tokens with the padding id, EOS among them, vanish from the loss of student-generated outputs; "
        "no effect where padding has an id of its own",
    )
    replayed_on_policy: bool = Field(
        default=False,
        description="on-policy, mixed and adaptive pay for fresh outputs, then train on older ones from a buffer",
    )
    train_without_bos: bool = Field(
        default=False, description="training prompts lack the BOS that test prompts have; no effect where none is added"
    )
    no_repeat_ngram: bool = Field(
        default=False,
        description=f"test decoding forbids repeating any {NO_REPEAT_NGRAM}-gram; training and validation do not",
    )
