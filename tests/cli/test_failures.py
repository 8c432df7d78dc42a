"""`failures explain`: what an excerpt or cases are taken for, and what follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import main
from tests.core.corpus.cases import cases, is_right

LOG = """step 7 loss 2.1
[rank0]: Traceback (most recent call last):
[rank0]:   File "/code/train.py", line 9, in job
[rank0]:     loss.backward()
[rank0]: torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered
[rank0]: CUDA kernel errors might be asynchronously reported at some other API call
"""


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def call(text: str, *words: str, name: str = "it.log") -> tuple[int, str, str]:
        (tmp_path / name).write_text(text)
        code = main(["failures", "explain", name, *words])
        return code, *capsys.readouterr()

    return call


def test_a_log_excerpt_is_read_with_the_traceback_at_its_end(explain) -> None:
    code, out, _ = explain(LOG)
    first, evidence, sign, follows = out.splitlines()
    assert code == 0
    assert first == "device_lost (chip; certain; does not pass by itself)"
    assert evidence.endswith("CUDA error: uncorrectable ECC error encountered")
    assert "runtime_ecc: ^" in sign
    assert follows == "  follows   other_nodes: again on other nodes of the pool"


def test_what_only_a_signal_shows_is_tried_as_what_nobody_knows(explain) -> None:
    log = "xyzzy: fatal 0x77\n*** SIGSEGV received at time=1700000000 on cpu 0 ***\nstep 7\n"
    first, evidence, _, follows = explain(log)[1].splitlines()
    assert first == "software (chip; likely; may pass by itself)"
    assert evidence == "  evidence  xyzzy: fatal 0x77"
    assert follows.startswith("  follows   escalate: ")


def test_json_of_one_excerpt_is_an_object(explain) -> None:
    told = json.loads(explain(LOG, "--json")[1])
    assert told.keys() == {
        *("kind", "where", "sign", "pattern", "certain", "transient", "evidence", "follows"),
    }
    assert (told["kind"], told["where"], told["sign"]) == ("device_lost", "chip", "runtime_ecc")
    assert (told["certain"], told["transient"], told["follows"]) == (True, False, "other_nodes")


def test_json_of_a_list_of_cases_is_a_list_with_what_is_right(explain) -> None:
    given = cases("shared")
    told = json.loads(explain(json.dumps(given), "--json", name="cases.json")[1])
    assert len(told) == len(given)
    assert all(one["right"] for one in told)
    assert [one["expected"] for one in told] == [case["expected"] for case in given]


def test_the_answers_are_those_of_the_corpus(explain) -> None:
    given = cases("trackers")
    told = json.loads(explain(json.dumps(given), "--json")[1])
    assert all(is_right(one["kind"], case) for one, case in zip(told, given, strict=True))


def test_a_list_says_at_its_end_how_many_are_right(explain) -> None:
    wrong = {"as": "line", "lines": ["step 7"], "expected": ["hang"]}
    right = {"as": "line", "lines": ["step 7"], "expected": ["worker_lost"]}
    out = explain(json.dumps([wrong, right]))[1]
    assert "  expected  hang: not so" in out
    assert out.endswith("1 of 2 as expected\n")


def test_standard_input_is_read_where_no_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ([], ["-"], ["seed=2"], ["--json", "-"]):
        with (tmp_path / "in").open("w+b") as file:
            file.write(LOG.encode())
            file.seek(0)
            monkeypatch.setattr(sys, "stdin", type("In", (), {"buffer": file})())
            assert main(["failures", "explain", *words]) == 0
            assert "device_lost" in capsys.readouterr().out


def test_a_signature_of_the_users_own_stands_before_ours(explain, tmp_path: Path) -> None:
    group = tmp_path / "my/signatures"
    group.mkdir(parents=True)
    (group / "mine.yaml").write_text(
        "defaults: [documented, _self_]\n"
        "ecc_of_ours:\n"
        "  pattern: '^CUDA error: uncorrectable ECC'\n"
        "  kind: device_degraded\n"
        "  priority: 100\n"
    )
    told = json.loads(explain(LOG, "--json", "-cd", "my", "signatures=mine")[1])
    assert (told["kind"], told["sign"]) == ("device_degraded", "ecc_of_ours")


def test_a_signature_of_the_command_line_is_tried(explain) -> None:
    mine = "+signatures.boom={pattern: '^the flux is low', kind: device_lost}"
    told = json.loads(explain("step 1\nthe flux is low\n", "--json", mine)[1])
    assert (told["kind"], told["sign"]) == ("device_lost", "boom")


def test_what_a_stage_does_otherwise_is_told(explain) -> None:
    mine = "+pipeline.stages.noop.on_failure={device_lost: pause}"
    out = explain(LOG, "pipeline=noop", mine)[1]
    assert "in stage noop: pause: the run pauses, until it is resumed" in out


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "it.log", "'it.log' is empty"),
        ("{", "it.log", "is no JSON"),
        ("[1, 2", "cases.json", "is no JSON"),
        ("[1, 2]", "it.log", "is a list without cases"),
        ("[]", "it.log", "is a list without cases"),
        ("{}", "it.log", "'as' is None"),
        ('{"as": "line", "lines": 3}', "it.log", "'lines' is 3"),
        ('{"as": "exception", "lines": []}', "it.log", "'type' is None"),
        ('{"as": "exception", "type": "E", "message": 3}', "it.log", "'message' is 3"),
        ('[{"as": "line", "expected": 3}]', "it.log", "case 0: 'expected' is 3"),
    ],
)
def test_what_can_not_be_read_is_refused_in_one_line(
    explain, text: str, name: str, says: str
) -> None:
    code, out, err = explain(text, name=name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err


def test_a_file_that_is_not_there_is_refused(explain, capsys) -> None:
    assert main(["failures", "explain", "nowhere.log"]) == 2
    assert "'nowhere.log' can't be read: No such file" in capsys.readouterr().err


def test_a_pattern_that_is_none_is_refused(explain) -> None:
    code, _, err = explain(LOG, "+signatures.boom={pattern: '(', kind: data}")
    assert code == 2
    assert "signatures.boom.pattern: '(' is no regular expression" in err


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "it.log").write_text(LOG)
    source = (
        "import sys; from orchestrator.cli import main; "
        "main(['failures', 'explain', 'it.log']); print(*sys.modules)"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"ray", "torch", "mlflow", "transformers"} & set(done.stdout.split())


def test_the_users_code_is_no_end_before_it_is_certain(explain) -> None:
    out = explain("Traceback (most recent call last):\nKeyError: 'label'\n")[1]
    assert out.startswith("user_code (code; likely;")
    assert "  follows   escalate: again here, then" in out


def test_of_a_long_log_the_end_is_read(explain) -> None:
    code, out, _ = explain("CUDA out of memory? no\n" * 300_000 + LOG)
    assert (code, out.split()[0]) == (0, "device_lost")


def test_a_closed_standard_input_is_told(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["failures", "explain"]) == 2
    assert "standard input is closed; name a file" in capsys.readouterr().err
