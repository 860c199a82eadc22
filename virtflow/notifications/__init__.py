"""What virtflow tells others: versioned notifications, and the drivers that carry them."""
