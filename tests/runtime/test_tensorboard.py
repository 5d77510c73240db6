import numpy as np
from tensorboardX.proto.event_pb2 import Event

from resilinet_jax.runtime.tensorboard import LiveCurves


def events(folder):
    """What TensorBoard reads: each record is its length (8 bytes), a checksum (4), an event, a checksum (4)."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def scalars(folder):
    return [
        (event.step, value.tag, round(value.simple_value, 6))
        for event in events(folder)
        for value in event.summary.value
    ]


def test_each_run_gets_its_own_curves(tmp_path):
    curves = LiveCurves(tmp_path)
    curves.open(["a/dfg/run_0", "a/resilinet/run_1"])
    curves.resumed(0)
    curves.epoch(1, np.array([1.5, 2.5]), np.array([0.25, 0.75]))
    curves.epoch(2, np.array([1.25, np.nan]), np.array([0.5, 0.75]))
    curves.close()
    assert scalars(tmp_path / "a/dfg/run_0") == [
        (1, "loss", 1.5),
        (1, "validation_score", 0.25),
        (2, "loss", 1.25),
        (2, "validation_score", 0.5),
    ]
    told = scalars(tmp_path / "a/resilinet/run_1")
    assert [tag for _, tag, _ in told[:3]] == ["loss", "validation_score", "loss"]
    assert np.isnan(told[2][2])


def test_a_resumed_run_says_from_where_what_was_written_is_void(tmp_path):
    curves = LiveCurves(tmp_path)
    curves.open(["run_0"])
    curves.resumed(3)
    curves.epoch(4, np.array([1.0]), np.array([0.5]))
    curves.close()
    restarts = [event.step for event in events(tmp_path / "run_0") if event.HasField("session_log")]
    assert restarts == [4]
    assert [step for step, *_ in scalars(tmp_path / "run_0")] == [4, 4]


def test_a_new_pass_goes_to_its_own_runs(tmp_path):
    curves = LiveCurves(tmp_path)
    for name in ("run_0", "run_1"):
        curves.open([name])
        curves.resumed(0)
        curves.epoch(1, np.array([1.0]), np.array([0.5]))
    curves.close()
    assert len(scalars(tmp_path / "run_0")) == len(scalars(tmp_path / "run_1")) == 2
