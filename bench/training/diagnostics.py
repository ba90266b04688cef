"""What shows why a method behaves as it does: the student's entropy, the teacher's loss on SGOs."""

from __future__ import annotations

from torch import Tensor

from distillm import TokenSequence


class Diagnostics:
    """Means over the response tokens of one batch, gathered micro-batch by micro-batch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tensor, batch: list[TokenSequence]
    ) -> None:
        """Take a micro-batch into account.

        Args:
            student_logits: (N, V), detached.
            teacher_logits: (N, V), or None where the objective needs no teacher.
            tokens: (N,), the response tokens.
            batch: the sequences they belong to.
        """
        log_q = student_logits.float().log_softmax(-1)
        # a masked entry has q = 0 and log q = -inf: its term is 0
        terms = log_q.exp() * log_q.clamp(min=-1e4)
        self._count("student_entropy", -terms.sum(-1))
        if teacher_logits is not None:
            made = tokens.new_tensor([s.sampled_at_step is not None for s in batch for _ in s.response]).bool()
            if made.any():
                log_p = teacher_logits[made].float().log_softmax(-1)
                chosen = log_p.gather(-1, tokens[made][:, None]).squeeze(-1)
                self._count("teacher_loss_on_sgo", -chosen.clamp(min=-1e4))

    def _count(self, name: str, values: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.sum())
        self.counts[name] = self.counts.get(name, 0) + len(values)

    def means(self) -> dict[str, float]:
        """Nats per response token: `student_entropy`, and `teacher_loss_on_sgo` where there were SGOs and a teacher."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}
