"""A torch device with an accelerator's name: what works on it, and what it refuses."""

from __future__ import annotations

import pytest

from tests.emulation.interpreter import Interpreter


def test_tensors_say_that_they_are_on_the_device(npu: Interpreter) -> None:
    told = npu("x = torch.ones(2).to('npu'); result = [str(x.device), repr(x), x.tolist()]")
    assert told == ["npu:0", "tensor([1., 1.], device='npu:0')", [1.0, 1.0]]


def test_the_device_module_tells_of_an_emulated_chip(npu: Interpreter) -> None:
    told = npu("m = torch.npu; result = [m.get_device_name(), m.device_count(), m.is_available()]")
    assert told == ["Ascend 910C (emulated)", 1, True]


def test_memory_in_use_is_counted(npu: Interpreter) -> None:
    code = """
before = torch.npu.memory_allocated()
held = torch.zeros(1000, device="npu"), torch.zeros(10, device="npu")
view = held[0][5:]
free, total = torch.npu.mem_get_info()
result = [torch.npu.memory_allocated() - before, total - free - before, total]
"""
    assert npu(code) == [4040, 4040, 64 * 10**9]


def test_whole_numbers_are_counted_as_chips_do(npu: Interpreter) -> None:
    code = """
numbers = torch.tensor([0, 2, 2, 3], dtype=torch.int32, device="npu")
counts = torch.histc(numbers, bins=4, min=0, max=4)
result = [counts.tolist(), str(counts.dtype), str(counts.device)]
"""
    assert npu(code) == [[1, 0, 2, 1], "torch.int32", "npu:0"]


def test_random_numbers_are_those_of_the_cpu_and_their_state_can_be_kept(npu: Interpreter) -> None:
    code = """
torch.manual_seed(3); here = torch.rand(4)
torch.manual_seed(3); there = torch.rand(4, device="npu")
state = torch.npu.get_rng_state(); one = torch.rand(4, device="npu")
torch.npu.set_rng_state(state); other = torch.rand(4, device="npu")
result = [here.tolist() == there.tolist(), one.tolist() == other.tolist()]
"""
    assert npu(code) == [True, True]


def test_training_a_network_gives_the_numbers_of_the_cpu(npu: Interpreter) -> None:
    code = """
def train(on):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Embedding(10, 8), torch.nn.Linear(8, 8), torch.nn.SiLU(), torch.nn.Dropout(0.5),
        torch.nn.LayerNorm(8), torch.nn.Linear(8, 10)).to(on)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=False)
    losses = []
    for _ in range(5):
        ids = torch.randint(0, 10, (16,)).to(on)
        loss = torch.nn.functional.cross_entropy(net(ids), ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step(); optimizer.zero_grad()
        losses.append(loss.item())
    return losses
result = [train("cpu"), train("npu:0")]
"""
    here, there = npu(code)
    assert there == pytest.approx(here, rel=1e-5)  # several tensors at once, in another order


def test_weights_that_are_tied_stay_so_on_their_way_to_the_device(npu: Interpreter) -> None:
    code = """
net = torch.nn.ModuleList([torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4, bias=False)])
net[1].weight = net[0].weight
net.to("npu")
result = [net[1].weight is net[0].weight, str(net[0].weight.device), len([*net.parameters()])]
"""
    assert npu(code) == [True, "npu:0", 1]


def test_a_model_changes_its_type_in_place(npu: Interpreter) -> None:
    code = """
net = torch.nn.Linear(2, 2).to("npu").to(torch.bfloat16)
result = [str(net.weight.dtype), str(net.weight.on_cpu.dtype), str(net.weight.device)]
net.weight.data = torch.ones(2, 2, device="npu")
result += [net.weight.tolist()]
"""
    told = npu(code)
    assert told == ["torch.bfloat16", "torch.bfloat16", "npu:0", [[1.0, 1.0], [1.0, 1.0]]]


def test_a_model_is_copied_with_its_ties_and_gradients(npu: Interpreter) -> None:
    code = """
from copy import deepcopy
net = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]).to("npu")
net[1].weight = net[0].weight
net[0](torch.ones(1, 2, device="npu")).sum().backward()
other = deepcopy(net)
other[0].weight.data.zero_()
result = [
    other[1].weight is other[0].weight, isinstance(other[0].weight, torch.nn.Parameter),
    other[0].weight.grad.tolist() == net[0].weight.grad.tolist(), bool(net[0].weight.any())]
"""
    assert npu(code) == [True, True, True, True]


def test_views_share_memory_and_indices_may_be_the_hosts(npu: Interpreter) -> None:
    code = """
x = torch.zeros(3, 2, device="npu")
x[0] = 1; x.view(-1)[5] = 2; x[torch.tensor([1]), 0] = 3
y = torch.ones(1, 3, device="npu"); y.squeeze_()
result = [x.tolist(), x[torch.tensor([2, 0])].tolist(), list(y.shape)]
"""
    assert npu(code) == [[[1.0, 1.0], [3.0, 0.0], [0.0, 2.0]], [[0.0, 2.0], [1.0, 1.0]], [3]]


def test_complex_numbers_have_the_gradients_of_the_cpu(npu: Interpreter) -> None:
    code = """
def turned(at):
    pairs, turns = (torch.linspace(-1, 1, 12, device=at).reshape(2, 3, 2) * k for k in (1, 3))
    pairs, turns = (torch.view_as_complex(x).detach().requires_grad_() for x in (pairs, turns))
    slope = torch.complex(torch.arange(6.0, device=at), torch.ones(6, device=at)).reshape(2, 3)
    (pairs * turns).backward(slope)
    parts = [part for one in (pairs, turns) for part in (one.grad.real, one.conj().imag * 2)]
    return torch.stack(parts).tolist()
result = turned("npu") == turned("cpu")
"""
    assert npu(code) is True


def test_inference_mode_takes_operators_apart_too(npu: Interpreter) -> None:
    code = """
with torch.inference_mode():
    x = torch.ones(2, 2).to("npu", torch.float64)
    y = torch.nn.functional.linear(x, x.to(x)).float().to("cpu")
result = [str(x.device), str(y.device), y.tolist()]
"""
    assert npu(code) == ["npu:0", "cpu", [[2.0, 2.0], [2.0, 2.0]]]


def test_tensors_can_be_saved_and_read_on_the_host(npu: Interpreter) -> None:
    code = """
import io
file = io.BytesIO()
torch.save({"w": torch.ones(2, device="npu")}, file)
file.seek(0); there = torch.load(file)["w"]
file.seek(0); here = torch.load(file, map_location="cpu")["w"]
result = [str(there.device), str(here.device), here.tolist()]
"""
    assert npu(code) == ["npu:0", "cpu", [1.0, 1.0]]


def test_tensors_of_the_host_and_the_device_do_not_mix(npu: Interpreter) -> None:
    told = npu.error("torch.ones(2, device='npu') + torch.ones(2)")
    assert "Expected all tensors to be on the same device" in told
    assert "npu:0 and cpu!" in told
    assert npu("result = (torch.ones(2, device='npu') + torch.tensor(1.0)).tolist()") == [2.0, 2.0]


def test_what_torch_makes_of_an_empty_tensor_has_its_shape(npu: Interpreter) -> None:
    code = (
        "made = torch.arange(7, device='npu'); result = [*made.shape, made.numel(), made.nbytes]"
    )
    assert npu(code) == [7, 7, 56]


def test_numpy_wants_the_tensor_on_the_host(npu: Interpreter) -> None:
    told = npu.error("torch.ones(2, device='npu').numpy()")
    assert told.startswith("TypeError: can't convert npu:0 device type tensor to numpy")


@pytest.mark.parametrize("call", ["torch.npu.set_device(1)", "torch.npu.synchronize('npu:1')"])
def test_a_worker_sees_its_own_chips_alone(npu: Interpreter, call: str) -> None:
    assert "invalid device ordinal 1 of 'npu'" in npu.error(call)


def test_what_is_not_emulated_says_so(npu: Interpreter) -> None:
    assert npu.error("torch.npu.Graph()") == "AttributeError: torch.npu.Graph is not emulated"


def test_a_process_has_one_device_name(npu: Interpreter) -> None:
    code = "device.install(replace(CHIP, device='mlu'), count=1, unsupported=(), on_host=())"
    told = npu.error(code)
    assert told.startswith("JobError: this process emulates 'npu' already, 'mlu' can't be added")
