"""Files that the tests of data sets read."""

import numpy as np

HEADER = "sequence,step,x1,x2,y\n"


def write(folder, text, name="data.csv"):
    path = folder / name
    path.write_text(text)
    return path


def save(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def arrays(n=12, t=3, d=2, **replaced):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(n, t, d)), "y": np.arange(n) % 2, **replaced}
