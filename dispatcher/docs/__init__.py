"""The code → the tables of README.md and docs/*.md: `python -m dispatcher.docs` rewrites what stands between two marks, and nothing else.

A test compares the pages with what this would write, so a table cannot say something that the code does not.
"""
