"""ExecutionEnvironment of the local stack, with a function of these tests."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_stack import wait_until

from local.emulator import EmulatorError, ExecutionEnvironment, InvocationFailed, install_emulator, runtime_command

FUNCTION = """
import os, time
from pathlib import Path

def handler(event, context):
    if event.get("do") == "raise":
        raise ValueError("as the test requires")
    if event.get("do") == "exit":
        os._exit(1)
    if event.get("do") == "sleep":
        Path(event["marker"]).touch()
        time.sleep(600)
    return {"process": os.getpid(), "model": os.environ["MODEL"]}
"""

Make = Callable[..., ExecutionEnvironment]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A function that makes environments from a function's source; they are closed after the test."""
    made = []

    def make(source: str = FUNCTION, timeout: int = 60) -> ExecutionEnvironment:
        (tmp_path / "function.py").write_text(source)
        environment = ExecutionEnvironment(
            install_emulator(tmp_path),
            runtime_command("function.handler"),
            {**os.environ, "MODEL": "old"},
            folder=tmp_path,
            timeout=timeout,
            log=tmp_path / "log",
        )
        made.append(environment)
        return environment

    yield make
    for environment in made:
        environment.close()


def test_a_function_handles_several_events_in_one_process(make: Make) -> None:
    environment = make()
    first, second = environment.invoke({}), environment.invoke({})
    assert first == second
    assert first["model"] == "old"


def test_a_function_that_raises_an_error_keeps_running(make: Make) -> None:
    environment = make()
    before = environment.invoke({})
    with pytest.raises(InvocationFailed, match="ValueError"):
        environment.invoke({"do": "raise"})
    assert environment.invoke({}) == before


def test_a_function_that_exits_is_restarted(make: Make) -> None:
    environment = make()
    before = environment.invoke({})
    with pytest.raises(InvocationFailed):
        environment.invoke({"do": "exit"})
    assert environment.invoke({})["process"] != before["process"]


def test_a_function_that_times_out_is_restarted(make: Make, tmp_path: Path) -> None:
    environment = make(timeout=2)
    before = environment.invoke({})
    with pytest.raises(InvocationFailed):
        environment.invoke({"do": "sleep", "marker": str(tmp_path / "started")})
    assert environment.invoke({})["process"] != before["process"]


def test_killing_a_function_leaves_no_process(make: Make, tmp_path: Path) -> None:
    environment, started = make(), tmp_path / "started"
    before = environment.invoke({})
    killer = threading.Thread(target=lambda: (wait_until(started.exists), environment.kill()))
    killer.start()
    with pytest.raises(InvocationFailed):
        environment.invoke({"do": "sleep", "marker": str(started)})
    killer.join()
    wait_until(lambda: not is_running(before["process"]))
    assert environment.invoke({})["process"] != before["process"]


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_new_variables_apply_from_the_next_event(make: Make) -> None:
    environment = make()
    assert environment.invoke({})["model"] == "old"
    environment.deploy({"MODEL": "new"})
    assert environment.invoke({})["model"] == "new"


def test_a_closed_environment_refuses_events(make: Make) -> None:
    environment = make()
    process = environment.invoke({})["process"]
    environment.close()
    wait_until(lambda: not is_running(process))
    with pytest.raises(InvocationFailed):
        environment.invoke({})


def test_a_function_that_cannot_start_reports_its_error(make: Make) -> None:
    environment = make('raise ValueError("there is no model")')
    with pytest.raises(EmulatorError, match="there is no model"):
        environment.start()
    with pytest.raises(InvocationFailed, match="there is no model"):
        environment.invoke({})
