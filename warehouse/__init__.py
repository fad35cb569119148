"""Postgres itself: the embedded server, credentials, roles and schemas (plain SQL files), COPY in and out.

The only package that opens a connection. What the rows mean is not known here.
"""
