"""What an upstream system imports to publish: `from ledger import Publisher, events`."""
