"""What a campaign caused: arms, the sales of everyone assigned, and what can be said of them."""
