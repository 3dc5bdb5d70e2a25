"""Helpers that tests share: databases, trained jobs, searches, and stand-ins for services."""
