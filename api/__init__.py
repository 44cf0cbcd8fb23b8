"""The owner's endpoint on loopback, and how the command line finds and asks it."""
