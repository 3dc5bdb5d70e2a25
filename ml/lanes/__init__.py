"""Lanes: several trials that train as one module on shared minibatches, and their arithmetic for any device."""
