"""Before a run with a money limit spends anything: what the API says of prices and balance. Asked for free."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from batchgen.model import AccountRefused
from batchgen.plan import Plan
from batchgen.runner.session import Access, Session
from batchgen.text import counted

if TYPE_CHECKING:
    from batchgen.runner.online import Offer


async def priced(session: Session, plan: Plan, ask: Callable[[Access], Awaitable[Offer]]) -> Session:
    """The session with the API's prices where it has none of its own, and with notices of what its balance pays for.

    Asks only where money is limited and the API tells of money. What cannot be had is a notice. Raises AccountRefused
    where the key is wrong, or the balance does not pay for one picture.
    """
    settings = session.settings
    tells = settings.api.credits_path is not None and not settings.in_process
    if settings.limits.max_cost_usd is None or not tells or not plan.remaining:
        return session
    offer = await ask(session.access)
    prices_usd = offer.prices_usd | dict(settings.prices_usd)
    notices = [*session.notices, *offer.notices, *_short_of(offer.balance_usd, plan, prices_usd)]
    return replace(session, settings=replace(settings, prices_usd=prices_usd), notices=tuple(notices))


def _short_of(balance_usd: float | None, plan: Plan, prices_usd: Mapping[str, float]) -> list[str]:
    """A notice where the balance does not pay for all of the plan."""
    if balance_usd is None:
        return []
    known = [prices_usd[model] for model in plan.to_do if model in prices_usd]
    cheapest_usd, cost_usd = min(known, default=0.0), plan.cost_usd(prices_usd)
    if cheapest_usd > balance_usd:
        raise AccountRefused(
            f"the account holds ${balance_usd:.4f}, and the cheapest picture of this run costs ${cheapest_usd:.4f};"
            " top it up first; nothing was sent"
        )
    if cost_usd is None or cost_usd <= balance_usd:
        return []
    enough = int(plan.remaining * balance_usd / cost_usd + 1e-9)
    return [
        f"the account holds ${balance_usd:.4f} and this run may cost ${cost_usd:.4f}: it pays for about {enough} of"
        f" {counted(plan.remaining, 'picture')}"
    ]
