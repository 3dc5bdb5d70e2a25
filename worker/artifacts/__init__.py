"""The store of artifacts: objects under keys, in a folder or in S3."""
