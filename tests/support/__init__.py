"""What tests share: databases, trained jobs, searches and stand-ins for what cannot run here."""
