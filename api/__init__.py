"""The owner's HTTP endpoint on loopback, and the client with which the command line finds and calls it."""
