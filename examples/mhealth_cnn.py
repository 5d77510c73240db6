"""A convolutional network over windows of wearable-sensor readings, split over three nodes: a minute on two cores.

python launch.py --scenario=examples/mhealth_cnn.py --draw
python launch.py --scenario=examples/mhealth_cnn.py --sweep=failure_combinations

sensor -> edge -> fog -> cloud: the sensor only measures; each of the others computes one convolution. A skip leads
around the edge and one around the fog, so that the cloud still hears something when either dies.
"""

import flax.linen as nn
import numpy as np

import resilinet_jax as rj

WINDOW = 32  # readings in a window: 0.6 s at 50 Hz


class Convolution(nn.Module):
    """What a node computes: a convolution along time, which halves the number of instants."""

    channels: int

    @nn.compact
    def __call__(self, x, training):
        """`x` is [windows, instants, channels]; `training` would tell dropout, of which there is none here."""
        return nn.relu(nn.LayerNorm()(nn.Conv(self.channels, (5,), strides=2)(x)))


class Classifier(nn.Module):
    """The cloud's part: one more convolution, the mean over time, and one logit a class."""

    channels: int
    classes: int

    @nn.compact
    def __call__(self, x, training):
        """Logits [windows, classes]."""
        x = Convolution(self.channels)(x, training)
        return nn.Dense(self.classes)(x.mean(1))


def build_network(classes, channels):
    """The graph, a stage for each node that computes, an adapter for each hyperconnection that changes shape."""
    graph = rj.build_chain(("sensor", "edge", "fog", "cloud"))  # with a skip around edge and one around fog
    stages = {
        "edge": Convolution(channels),
        "fog": Convolution(2 * channels),
        "cloud": Classifier(2 * channels, classes),
    }
    # A skip has to bring what the node that it bypasses would have sent: as many channels and instants.
    adapters = {
        "sensor->fog": nn.Conv(channels, (1,), strides=2),
        "edge->cloud": nn.Conv(2 * channels, (1,), strides=2),
    }
    return rj.Network(graph, stages, adapters)


def cut_windows(readings):
    """Windows that don't overlap, each from one subject's one activity, as [windows, instants, channels].

    The rows have to be in the order of time, as those of mHealth and of the synthetic data set are.
    """
    subject = np.zeros_like(readings.y) if readings.subject is None else readings.subject
    changes = np.flatnonzero(np.diff(readings.y) | np.diff(subject)) + 1
    starts = [
        first
        for start, end in zip([0, *changes], [*changes, len(readings.y)])
        for first in range(start, end - WINDOW + 1, WINDOW)
    ]
    if not starts:
        raise rj.UserError(f"{readings.name}: no {WINDOW} rows in a row of one class; sort them by time")
    x = np.stack([readings.x[first : first + WINDOW] for first in starts])
    return rj.Dataset(readings.name, x, readings.y[starts], None if readings.subject is None else subject[starts])


def load(settings, preset):
    """MHealth if it is prepared, else synthetic readings, or whatever --dataset says; split by window or subject."""
    readings, told = rj.load_dataset(settings.dataset, settings.data_folder)
    windows = cut_windows(readings)
    splits = rj.draw_splits(windows, settings, preset.train_examples)
    told += f"; {len(windows.y):,} windows of {WINDOW} rows"
    return rj.Data(rj.Resident(splits), splits.classes, windows.name, told, len(windows.y), windows.fingerprint())


SCENARIO = rj.Scenario(
    name="mhealth_cnn",  # results go to results/mhealth_cnn
    datasets=("synthetic", "mhealth", ".npz"),  # what --dataset may be
    load=load,
    build_network=build_network,
    failure_settings={  # failure probabilities; the sensor and the cloud never fail
        "no failure": {},
        "normal": {"edge": 0.08, "fog": 0.03},
        "hazardous": {"edge": 0.22, "fog": 0.15},
    },
    presets={
        "quick": rj.Preset(
            runs=3,
            epochs=10,
            batch_size=64,
            learning_rate=0.001,
            failout_rate=0.1,
            train_examples=4000,
            network={"channels": 8},  # goes to build_network
        ),
    },
)
