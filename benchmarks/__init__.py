"""Programs that measure, each printing its baseline beside it: README.md says what and how."""
