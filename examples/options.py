"""Prices of options by Monte Carlo: one task for each strike price and volatility.

    python examples/options.py [PATHS]

Needs numpy. It runs with `import ipyparallel as ipp`, too.
"""

from __future__ import annotations

import sys

import engineroom as ipp

STRIKES = (90.0, 95.0, 100.0, 105.0, 110.0)
VOLATILITIES = (0.1, 0.2, 0.3)


@ipp.require("numpy")
def prices(strike, volatility, paths, share=100.0, rate=0.05, days=260):
    """Prices of a European call and put, and of an Asian call, on a share; `days` to go at this interest rate."""
    import numpy as np

    day = 1 / days
    noise = np.random.default_rng(7).standard_normal((paths, days))
    growth = (rate - volatility**2 / 2) * day + volatility * day**0.5 * noise
    course = share * np.exp(growth.cumsum(axis=1))
    end, mean, discount = course[:, -1], course.mean(axis=1), np.exp(-rate)
    pays = end - strike, strike - end, mean - strike
    return tuple(float(discount * np.maximum(pay, 0).mean()) for pay in pays)


def main():
    paths = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with ipp.Cluster(n=2) as rc:
        view = rc.load_balanced_view()
        results = {}
        for volatility in VOLATILITIES:
            with view.temp_flags(label=f"volatility {volatility}"):
                for strike in STRIKES:
                    results[strike, volatility] = view.apply_async(prices, strike, volatility, paths)
        rc.wait(results.values())
        print("strike  volatility  call   put    Asian call")
        for (strike, volatility), result in results.items():
            call, put, asian = result.get()
            print(f"{strike:6.0f}  {volatility:10.1f}  {call:5.2f}  {put:5.2f}  {asian:5.2f}")
        records = rc.db_query({"label": {"$glob": "volatility*"}}, keys=["label", "completed"])
        labels = {record["label"] for record in records}
        seconds = sum(result.serial_time for result in results.values())
        print(f"{len(results)} tasks with {len(labels)} labels; {seconds:.2f} s of computing on {len(rc)} engines")


if __name__ == "__main__":
    main()
