"""Makes `dsads23.npz` from the public archive of Daily and Sports Activities, for `--dataset=dsads23.npz`.

python examples/dsads.py
python examples/dsads.py daily+and+sports+activities.zip

19 activities of 8 people, recorded at 25 Hz by worn sensors (Barshan & Altun, UCI data set 256, CC BY 4.0). Kept is
every fifth row, and of the 45 columns 23 in the places of mHealth's: torso acceleration and gyroscope x and y, where
mHealth has the chest's acceleration and two leads of an ECG; then acceleration, gyroscope and magnetometer of the right
leg and of the right arm. 228,000 rows remain.
"""

import hashlib
import io
import pathlib
import re
import sys
import urllib.request
import zipfile

import numpy as np

URL = "https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip"
# The first column of each unit: 3 of acceleration, of gyroscope, of magnetometer.
TORSO, RIGHT_ARM, RIGHT_LEG = 0, 9, 27
COLUMNS = [*range(TORSO, TORSO + 5), *range(RIGHT_LEG, RIGHT_LEG + 9), *range(RIGHT_ARM, RIGHT_ARM + 9)]
EVERY = 5  # rows: 25 Hz become 5 Hz
SEGMENT = re.compile(r"a(\d\d)/p(\d)/s\d\d\.txt$")
ROWS = 228_000
# Of the rows that the project's findings rest on.
DIGEST = "0a3f34fa0bbb204460c533b4ac7ead6df189dca9c324710ef9449209e427091b"


def fetch(archive):
    """Downloads the archive; it appears once it is whole."""
    print(f"Fetching {URL} ...")
    part = archive.with_name(f"{archive.name}.part")
    urllib.request.urlretrieve(URL, part)
    part.replace(archive)


def read(archive):
    """Readings (float32), activity from 0 on, and person from 1 on, of each row; by activity, person and time."""
    if not zipfile.is_zipfile(archive):
        raise SystemExit(f"{archive} is no whole zip archive; remove it and fetch it again: {URL}")
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if SEGMENT.search(name))
        parts, labels = [], []
        for name in names:
            rows = np.loadtxt(io.BytesIO(file.read(name)), delimiter=",", ndmin=2)[::EVERY, COLUMNS]
            activity, person = map(int, SEGMENT.search(name).groups())
            parts.append(rows.astype(np.float32))
            labels.append(np.tile(np.array([[activity - 1, person]], np.int32), (len(rows), 1)))
    if not parts:
        raise SystemExit(f"{archive} holds no files like a01/p1/s01.txt; fetch the archive again: {URL}")
    y, subject = np.concatenate(labels).T
    return np.concatenate(parts), y, subject


def digest(x, y, subject):
    """Of the rows, to tell whether they are those that others had."""
    return hashlib.sha256(x.tobytes() + y.tobytes() + subject.tobytes()).hexdigest()


def main():
    """Fetches the archive unless one is named, and writes `dsads23.npz`."""
    given = [pathlib.Path(name) for name in sys.argv[1:]]
    archive = given[0] if given else pathlib.Path("daily+and+sports+activities.zip")
    if not given and not archive.exists():
        fetch(archive)
    x, y, subject = read(archive)
    np.savez("dsads23.npz", x=x, y=y, subject=subject)
    same = digest(x, y, subject) == DIGEST
    print(f"Written dsads23.npz: {len(y):,} rows, {len(np.unique(y))} activities, {len(np.unique(subject))} people.")
    print(f"They are {'' if same else 'NOT '}the {ROWS:,} rows that docs/findings.md rests on.")


if __name__ == "__main__":
    main()
