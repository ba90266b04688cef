"""Training on a CUDA device. Skipped where there is none."""

import pytest
import torch

from bench.training.trainer import Trainer
from distillm import SourceOptions
from distillm.methods import SRKL
from tests.tiny import CPU, make_job, same, weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_srkl_takes_the_steps_on_a_gpu_that_it_takes_on_a_cpu(family, tokenizers, tmp_path):
    curves = {}
    for device in (CPU, torch.device("cuda:0")):
        work = tmp_path / device.type
        job = make_job(tokenizers, family, SRKL(), "dataset", SourceOptions(), work, steps=2, device=device)
        before = weights(job.student)
        state = Trainer(job).fit()
        assert job.student.device.type == job.teacher.device.type == device.type
        assert not same(before, weights(job.student))
        assert list(work.glob("step-*/optimiser.safetensors"))
        curves[device.type] = [(row["loss"], row["gradient_norm"]) for row in state.curve]
    for on_gpu, on_cpu in zip(curves["cuda"], curves["cpu"], strict=True):
        assert on_gpu == pytest.approx(on_cpu, rel=1e-2)  # kernels of a GPU add up in another order
    assert len(curves["cuda"]) == 2
