"""The part of the http-parser distribution that pymesos uses.

http-parser 0.9.0 is a C extension that does not compile on Python 3.11 and later. This
distribution takes its name and gives pymesos the same class over httptools (llhttp).
"""

__version__ = "0.9.1"
