"""The ledger itself: events, their bytes, the log. What an upstream system imports to publish:

from ledger import Publisher, events
"""

from ledger import events
from ledger.publisher import Publisher

__all__ = ["Publisher", "events"]
