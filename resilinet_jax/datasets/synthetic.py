"""The embedded default: synthetic readings of wearable sensors. Not a measurement of anybody.

It imitates the shape of mHealth, so that everything runs offline: ten subjects perform twelve activities, each
recorded for about a minute at 50 Hz by the same 23 channels. What a channel reads is

    activity's posture and motion + how this subject differs + sensor noise,

with posture the constant part (gravity and the earth's field, seen from a sensor that hangs a little differently
on each subject) and motion a periodic waveform of a few harmonics at the activity's and subject's own cadence.
One row holds one instant: the classifier sees neither the time nor the phase, so it has to know the closed curve
that each activity draws in 23 dimensions, for each subject. The heart beats beside it, and tells little.
"""

import numpy as np
from jaxtyping import Float

from resilinet_jax.datasets.splits import Dataset

SEED = 319  # of the data set itself: it stays the same whatever --seed says, as a recorded one would
SUBJECTS, ACTIVITIES = 10, 12
RATE = 50.0  # readings per second
ROWS = [3072] * 11 + [1024]  # per activity and subject; mHealth's last activity, too, is three times shorter
HARMONICS = 4
# Channels as in mHealth: chest acceleration, ECG, then acceleration, gyroscope and magnetometer of ankle and arm.
POSTURE = np.array([1.0] * 3 + [0.0] * 2 + [1.0] * 3 + [0.0] * 3 + [1.0] * 3 + [1.0] * 3 + [0.0] * 3 + [1.0] * 3)
MOTION = np.array([0.7] * 3 + [0.0] * 2 + [1.0] * 3 + [1.3] * 3 + [0.5] * 3 + [1.0] * 3 + [1.3] * 3 + [0.5] * 3)
ECG = slice(3, 5)
SUBJECT_DEVIATION = 0.6  # how much subjects differ, relative to how much activities differ
NOISE = 0.6  # standard deviation of a reading's noise, relative to the spread of postures


def load_synthetic() -> Dataset:
    """Makes the data set: 348,160 rows, in about a second, the same every time."""
    rng = np.random.default_rng(SEED)
    harmonic = np.arange(1, HARMONICS + 1)
    pattern_shape = (ACTIVITIES, 1 + 2 * HARMONICS, len(MOTION))
    # Higher harmonics are weaker, as in any smooth motion.
    strength = np.concatenate([POSTURE[None], np.repeat(MOTION[None] / harmonic[:, None], 2, 0)])
    common = rng.normal(size=pattern_shape)
    own = rng.normal(size=(SUBJECTS, *pattern_shape))
    pattern = (common + SUBJECT_DEVIATION * own) * strength
    cadence = rng.uniform(0.6, 2.4, ACTIVITIES) * rng.uniform(0.9, 1.1, (SUBJECTS, 1))
    heart_rate = rng.uniform(1.0, 2.5, ACTIVITIES) * rng.uniform(0.9, 1.1, (SUBJECTS, 1))

    x, y, subject = [], [], []
    for s in range(SUBJECTS):
        for activity, rows in enumerate(ROWS):
            time = np.arange(rows) / RATE
            angle = 2 * np.pi * (cadence[s, activity] * time + rng.uniform())
            basis = [np.ones(rows)] + [wave(k * angle) for k in harmonic for wave in (np.cos, np.sin)]
            readings = np.stack(basis, 1) @ pattern[s, activity]
            readings[:, ECG] += _heartbeat(heart_rate[s, activity] * time)[:, None]
            x.append(readings.astype(np.float32))
            y.append(np.full(rows, activity))
            subject.append(np.full(rows, s))
    clean = np.concatenate(x)
    noise = NOISE * rng.standard_normal(clean.shape, np.float32)
    return Dataset("synthetic", clean + noise, np.concatenate(y), np.concatenate(subject))


def _heartbeat(beats: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """A short spike once a beat."""
    return 2.0 * np.exp(-(((beats % 1.0 - 0.5) / 0.05) ** 2))
