"""Models that KAEMs are compared with; they have no learned univariate densities, or no posterior of their own."""
