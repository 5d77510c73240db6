"""Archives of mHealth."""

import zipfile


def write_zip(path, logs):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("MHEALTHDATASET/README.txt", "about")
        for subject, log in logs.items():
            archive.writestr(f"MHEALTHDATASET/mHealth_subject{subject}.log", log)
