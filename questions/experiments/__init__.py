"""The effect of a campaign: arms, the sales of everyone assigned, and the resulting estimates."""
