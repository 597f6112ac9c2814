"""Readers of demonstrations, one a format: each opens a source and yields its episodes as raw arrays, unchecked."""
