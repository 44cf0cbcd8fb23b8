"""What the owner of a database does about alerts after each commit: it tells `coupon.alerts` what the rules found, and
people what `coupon.alerts` says (docs/decisions/0032-alerts.md).

    work.py         one round: everything below, in order, bounded in time
    known.py        what the work knows and has decided
    episodes.py     which episodes to look at; when their alerts end
    rules.py        the rules file: read again when it changes, put in force
    tail.py         reads the topic in a thread of its own
    book.py         the table `alert_events`, and the book of alerts made from it
    conditions.py   from changed episodes and offenders to conditions
    evidence.py     the first events behind an episode, and the money at stake
    contributions.py  which parts drove a metric away from what was expected
    asked.py        rules on the tables: when each is asked, in a thread of its own
    on_tables.py    the questions that they are asked with
    actions.py      what the action of an alert would do, as events
    automatic.py    actions that are taken without asking, where a rule says so with a proof
    telling.py      who is told: policy, messages, what became of them

Always true: an alert fires once, whatever is killed, restarted, rebuilt or evaluated again. Each event's id is computed
from what it is about; the book knows every event that is in the log or in the outbox.
"""
