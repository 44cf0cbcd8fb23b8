"""The service: the HTTP API and the pages that people and other systems use, as a process of its own beside the owner.

    settings_store.py  people, tokens, sessions, saved views: a small SQLite file beside the database
    credentials.py     passwords and tokens: how they are made, hashed and checked
    callers.py         who sends a request, and what this caller may do
    problems.py        errors as `application/problem+json`
    appending.py       events of many requests are appended together (group commit)
    publishing.py      routes that publish events
    asking.py          routes that answer questions, in several formats, with pages and entity tags
    alerting.py        routes through which people act on alerts
    operating.py       routes for operators; jobs.py: long work as processes
    administering.py   routes for people and tokens; accounts.py: their rules
    auditing.py        who asked, exported or did what
    requests.py        bodies of requests that do something
    live.py            commits and alerts as server-sent events
    application.py     all of it put together
    serving.py         the process: sockets, TLS, limits, graceful stop

The service opens no database. It asks the owner on loopback with the owner's token, on behalf of its callers.
"""
