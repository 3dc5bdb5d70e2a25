"""Lanes: several trials that train as one module on shared minibatches, with their arithmetic for any device."""
