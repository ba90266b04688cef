"""What shows why a method behaves as it does: the student's entropy, the teacher's loss on SGOs."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.system.processes import Processes
from distillm import TokenSequence
from distillm.fused import Observer


class Diagnostics:
    """Means over the response tokens of one batch, gathered a few tokens at a time."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def observer(self, tokens: Tensor, batch: list[TokenSequence]) -> Observer:
        """What takes a micro-batch into account as its logits come.

        Args:
            tokens: (N,), the response tokens.
            batch: the sequences they belong to.
        """
        sampled = [s.sampled_at_step is not None for s in batch for _ in s.response]
        made = torch.tensor(sampled, device=tokens.device)

        def observe(rows: slice, student_logits: Tensor, teacher_logits: Tensor | None) -> None:
            log_q = student_logits.float().log_softmax(-1)
            # a masked entry has q = 0 and log q = -inf: its term is 0
            terms = log_q.exp() * log_q.clamp(min=-1e4)
            self._count("student_entropy", -terms.sum(-1), len(log_q))
            if teacher_logits is not None and any(sampled[rows]):
                log_p = teacher_logits.float().log_softmax(-1)
                chosen = log_p.gather(-1, tokens[rows, None]).squeeze(-1).clamp(min=-1e4)
                self._count("teacher_loss_on_sgo", -chosen * made[rows], sum(sampled[rows]))

        return observe

    def _count(self, name: str, values: Tensor, count: int) -> None:
        self.sums[name] = values.detach().sum() + self.sums.get(name, 0.0)
        self.counts[name] = self.counts.get(name, 0) + count

    def add_up(self, processes: Processes) -> None:
        """Take in what the other processes saw of the batch."""
        if processes.size == 1:
            return
        parts = processes.gather(({name: float(total) for name, total in self.sums.items()}, self.counts))
        self.sums, self.counts = {}, {}
        for sums, counts in parts:
            for name, total in sums.items():
                self._count(name, torch.tensor(total, dtype=torch.float64), counts[name])

    def means(self) -> dict[str, float]:
        """Nats per response token: `student_entropy`, and `teacher_loss_on_sgo` where there were SGOs and a teacher."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}
