"""How many draft tokens are worth a row of the target's pass. Sees drafts, texts, costs and outcomes, no model.

`fixed` is a number that the user gave, `planner` weighs chance against cost, `cost` and `chance` are what it learns by,
`events` what makes it look again and which kinds of text it tells apart, `learned` what is kept of that for a model,
`tuned` what `foretoken tune` found, and `disk` how both are kept.
"""

from foretoken.horizon.events import event_of
from foretoken.horizon.fixed import MAX_HORIZON, NAMED, FixedHorizon, parse_horizon, parse_min_chance
from foretoken.horizon.learned import Learned, Shelf
from foretoken.horizon.planner import AutoHorizon
from foretoken.horizon.protocol import Horizon, Paid
from foretoken.horizon.tuned import Tuned

__all__ = [
    "MAX_HORIZON",
    "NAMED",
    "AutoHorizon",
    "FixedHorizon",
    "Horizon",
    "Learned",
    "Paid",
    "Shelf",
    "Tuned",
    "event_of",
    "parse_horizon",
    "parse_min_chance",
]
