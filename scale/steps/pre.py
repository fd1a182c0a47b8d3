"""The phase before the job: an empty work folder with the inputs in it."""

from __future__ import annotations

import time

from .api import Api
from .fetch import Source, fetch
from .folders import make_work_folder
from .limits import Limits
from .orders import Orders
from .say import say


def run_pre(api: Api, orders: Orders, limits: Limits) -> None:
    """Bring every input; safe to repeat, each run starts from nothing."""
    began = time.monotonic()
    make_work_folder(orders.work_dir)
    say(f"inputs to bring into {orders.work_dir}: {len(orders.inputs)}")
    source = Source(api, orders, limits)
    for item in orders.inputs:
        fetch(item, source)
    say(f"all inputs are there after {time.monotonic() - began:.1f} s")
