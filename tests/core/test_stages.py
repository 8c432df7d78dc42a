"""What follows from what a user declares."""

from __future__ import annotations

from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs, OnPool
from tests.build import accelerator, pool, stage


def test_a_pool_has_the_price_and_the_roles_of_its_chip_unless_its_owner_says_otherwise() -> None:
    chip = accelerator(price_per_hour=2.0, roles=(Role.SERVE,))
    assert (pool("p", chip=chip).price, pool("p", chip=chip).allowed_roles) == (2.0, (Role.SERVE,))
    free = pool("p", chip=chip, price_per_hour=0.0, roles=(Role.TRAIN,))
    assert (free.price, free.allowed_roles) == (0.0, (Role.TRAIN,))


def test_work_on_an_emulated_pool_uses_the_device_that_is_there() -> None:
    chip = accelerator(device="npu", backend="hccl")
    real, emulated = pool("p", chip=chip), pool("p", chip=chip, emulation=Emulation())
    assert (real.device, real.backend, real.emulated) == ("npu", "hccl", False)
    assert (emulated.device, emulated.backend, emulated.emulated) == ("cpu", "gloo", True)


def test_the_selector_of_a_pool_names_it_and_adds_its_labels() -> None:
    assert pool("p", labels={"rack": "7"}).selector == {"pool": "p", "rack": "7"}


def test_the_size_of_a_pool_is_that_of_its_nodes() -> None:
    assert pool("p", nodes=3, devices_per_node=8).devices == 24


def test_a_stage_is_after_its_inputs_and_what_it_names_each_once() -> None:
    one = stage("s", "x", "y", inputs={"data": "y", "model": "z"})
    assert one.upstream == ("y", "z", "x")


def test_an_attempt_uses_the_devices_of_its_workers_or_replicas() -> None:
    endpoint = Endpoint(name="chat", engine="jobs.engines.e", replicas=3)
    needs = Needs(workers=2, devices=4)
    assert stage("s", needs=needs).devices == 8
    assert stage("s", job=None, endpoint=endpoint, needs=needs).devices == 12


def test_the_pools_of_a_role_are_in_order_and_each_once() -> None:
    bound = Bindings(roles={Role.TRAIN: "b"}, fallbacks={Role.TRAIN: ("a", "b", "c", "a")})
    assert bound.order(stage("s")) == ("b", "a", "c")
    assert bound.order(stage("s", role=Role.SERVE)) == ()
    assert bound.order(stage("s", pool="c")) == ("c", "a", "b")
    assert bound.order(stage("s", role=Role.SERVE, pool="c")) == ("c",)


def test_a_stage_is_on_a_pool_what_it_says_of_that() -> None:
    watch = Watch(hang=3600.0)
    differs = OnPool(needs=Needs(workers=3), params={"b": 2}, watch=watch)
    everywhere = stage("s", params={"a": 1, "b": 1}, needs=Needs(workers=8), on={"b": differs})
    there, elsewhere = everywhere.on_pool("b"), everywhere.on_pool("a")
    assert (there.needs.workers, there.params, there.watch) == (3, {"a": 1, "b": 2}, watch)
    assert elsewhere == everywhere


def test_an_emulated_pool_may_have_the_device_and_the_backend_of_its_chip() -> None:
    chip = accelerator(device="npu", backend="hccl")
    for device, backend in (("own", "own"), ("npu", "hccl")):
        emulation = Emulation(device=device, backend=backend)
        emulated = pool("p", chip=chip, emulation=emulation)
        assert (emulated.device, emulated.backend) == ("npu", "hccl")


def test_an_emulated_pool_says_what_stands_in_for_its_chips() -> None:
    chip = accelerator(device="npu")
    faults = (Fault(what=FaultType.HANG, at_step=1),)
    modes = {
        None: "",
        Emulation(): "plain CPU",
        Emulation(faults=faults): "plain CPU with faults",
        Emulation(device="own"): "npu on CPU",
        Emulation(device="own", faults=faults): "npu on CPU with faults",
    }
    assert {e: pool("p", chip=chip, emulation=e).emulation_mode for e in modes} == modes
