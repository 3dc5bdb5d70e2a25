"""HTTP itself: errors as problem details, limits, paging, and clients that are slow."""
