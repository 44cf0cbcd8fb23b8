"""The HTTP endpoint on loopback with which the owner of a database answers questions, and the client with which the
command line finds and uses it."""
