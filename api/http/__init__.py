"""Plain HTTP: errors as problem details, limits, paging, and slow clients."""
