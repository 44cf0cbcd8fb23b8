"""The projection `attribution`: which ids are one person (`persons`), and which touches led to an order (`paths`)."""
