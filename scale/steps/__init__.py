"""The program that runs on agents before and after a job: brings inputs, takes outputs away.

It is shipped as one file (see `archive`), uses the standard library only, imports nothing else of
Scale and must run on Python 3.8: annotations are never evaluated, newer calls are not used.
"""
