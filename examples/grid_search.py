"""A grid search over settings of a model, cross-validated: with scikit-learn on engines, or without scikit-learn.

    python examples/grid_search.py

With scikit-learn (`pip install scikit-learn joblib`), `GridSearchCV` runs on the engines through joblib. Without it, a
small model of our own does: k nearest neighbours, one task for each setting and fold. Either way each fit is a record.
"""

from __future__ import annotations

import importlib.util
import random

from show import count, heading, table

import engineroom as er


def points(number, seed=0):
    """Random points, and whether each lies within a ring."""
    chance = random.Random(seed)
    found = [(chance.uniform(-1, 1), chance.uniform(-1, 1)) for _ in range(number)]
    return found, [0.3 < x * x + y * y < 0.8 for x, y in found]


def score(known, classes, k, fold, folds=3):
    """How many points of a fold are put right by their k nearest neighbours among the others."""
    numbered = list(enumerate(zip(known, classes, strict=True)))
    rest = [pair for number, pair in numbered if number % folds != fold]
    mine = [pair for number, pair in numbered if number % folds == fold]
    right = 0
    for (x, y), cls in mine:
        near = sorted(rest, key=lambda other: (other[0][0] - x) ** 2 + (other[0][1] - y) ** 2)[:k]
        right += (sum(other for _, other in near) * 2 > k) == cls
    return right / len(mine)


def with_neighbours(rc, known, classes):
    """Our own search: (k, mean score) for each k."""
    view = rc.load_balanced_view(label="grid")
    grid = [(k, fold) for k in (1, 3, 9, 27, 81) for fold in range(3)]
    with view.temp_flags(metadata={"model": "neighbours"}):
        scores = view.map_sync(score, [known] * len(grid), [classes] * len(grid), *zip(*grid, strict=True))
    found = dict.fromkeys((k for k, _ in grid), 0.0)
    for (k, _), value in zip(grid, scores, strict=True):
        found[k] += value / 3
    return [(f"k={k}", value) for k, value in found.items()]


def with_sklearn(rc, known, classes):
    """scikit-learn's search, through joblib: (settings, mean score)."""
    import joblib
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier

    rc.load_balanced_view(label="grid").register_joblib_backend("engineroom")
    with joblib.parallel_backend("engineroom"):
        search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3, 9, 27, 81]}, cv=3, n_jobs=-1)
        search.fit(known, classes)
    settings, scores = search.cv_results_["params"], search.cv_results_["mean_test_score"]
    return [(f"k={setting['n_neighbors']}", float(one)) for setting, one in zip(settings, scores, strict=True)]


def main():
    known, classes = points(300)
    is_there = all(importlib.util.find_spec(name) for name in ("sklearn", "joblib"))
    with er.Cluster(n=2) as rc:
        found = (with_sklearn if is_there else with_neighbours)(rc, known, classes)
        model = "scikit-learn" if is_there else "Neighbours of our own"
        heading(f"{model}: {count(len(found), 'setting')}, 3 folds each")
        table(("setting", "score"), found)
        best, value = max(found, key=lambda row: row[1])
        print(f"\nbest: {best}, with {value:.2f}; {count(rc.db_count({'label': 'grid'}), 'task')} remembered")


if __name__ == "__main__":
    main()
