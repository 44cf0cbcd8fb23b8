"""Why a number changed: between two states of knowledge, or between two periods."""
