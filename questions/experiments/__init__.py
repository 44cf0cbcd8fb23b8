"""The effect of a campaign: its arms, the sales of all people assigned to them, and estimates from these sales."""
